//! The tensor types of GGUF by number. Those that kernels read map to a [`DType`]; the others have a name,
//! so that a user learns what the file holds, and a size where it is known, so that their place is checked too.

use biga_hal::DType;

use crate::load::tensors::Format;

/// Number, name, elements a quant block, bytes a quant block.
const OTHERS: [(u32, &str, u64, u64); 24] = [
    (9, "Q8_1", 32, 36),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (31, "Q4_0_4_4", 32, 18),
    (32, "Q4_0_4_8", 32, 18),
    (33, "Q4_0_8_8", 32, 18),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
];

fn dtype_of(type_id: u32) -> Option<DType> {
    Some(match type_id {
        0 => DType::F32,
        1 => DType::F16,
        2 => DType::Q4_0,
        3 => DType::Q4_1,
        6 => DType::Q5_0,
        7 => DType::Q5_1,
        8 => DType::Q8_0,
        12 => DType::Q4_K,
        13 => DType::Q5_K,
        14 => DType::Q6_K,
        30 => DType::BF16,
        _ => return None,
    })
}

/// The format, and elements and bytes of a quant block where they are known.
pub(super) fn format_of(type_id: u32) -> (Format, Option<(u64, u64)>) {
    if let Some(dtype) = dtype_of(type_id) {
        return (Format::Known(dtype), Some((dtype.block_len() as u64, dtype.block_bytes() as u64)));
    }
    match OTHERS.into_iter().find(|&(id, ..)| id == type_id) {
        Some((_, name, block_len, block_bytes)) => (Format::Other(name.to_owned()), Some((block_len, block_bytes))),
        None => (Format::Other(format!("type {type_id}")), None),
    }
}
