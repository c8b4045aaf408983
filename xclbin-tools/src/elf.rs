//! ELF files as aiebu writes them: an instruction stream, and PDIs, with relocations.
