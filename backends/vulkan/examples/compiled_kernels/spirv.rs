//! Names of specialisation constants, out of a SPIR-V module's debug names.

use std::collections::BTreeMap;

/// Words before the first instruction.
const HEADER_WORDS: usize = 5;
const OP_NAME: u32 = 5;
const OP_DECORATE: u32 = 71;
/// The decoration that gives a specialisation constant its number.
const SPEC_ID: u32 = 1;

/// By number, the names of the constants that have both. Stops at what is no instruction.
pub(crate) fn constant_names(words: &[u32]) -> BTreeMap<u32, String> {
    let mut names = BTreeMap::new();
    let mut numbers = BTreeMap::new();
    let mut rest = words.get(HEADER_WORDS..).unwrap_or_default();
    while let Some(&first) = rest.first() {
        let (count, operation) = ((first >> 16) as usize, first & 0xFFFF);
        let Some(operands) = rest.get(1..count) else { break };
        match (operation, operands) {
            (OP_NAME, [id, name @ ..]) => {
                let bytes = name.iter().flat_map(|word| word.to_le_bytes()).take_while(|&byte| byte != 0).collect();
                names.insert(*id, String::from_utf8(bytes).unwrap_or_default());
            }
            (OP_DECORATE, [id, SPEC_ID, number]) => {
                numbers.insert(*number, *id);
            }
            _ => {}
        }
        rest = &rest[count..];
    }
    let named = numbers.into_iter().filter_map(|(number, id)| Some((number, names.get(&id)?.clone())));
    named.filter(|(_, name)| !name.is_empty()).collect()
}
