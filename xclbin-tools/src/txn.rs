//! Instruction streams (`insts.bin`): the transactions of one launch.
