//! Beside other tools: what we write is held against `xclbinutil`, `bootgen`, `aiebu-asm` and `aiebu-dump`
//! byte for byte, and each side reads the other's files.

mod package;
mod pdi;
mod sections;
mod stream;
mod tools;
