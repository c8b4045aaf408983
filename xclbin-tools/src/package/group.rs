//! GROUP_TOPOLOGY and GROUP_CONNECTIVITY, from MEM_TOPOLOGY and CONNECTIVITY: banks that one argument reaches and
//! that lie one behind the other in memory become one.
//!
//! Of an NPU's package the two are copies of what they are made from, the connections twice: HOST and SRAM are no
//! neighbours. The rules are those of `createMemoryBankGrouping` in
//! `Xilinx/XRT:src/runtime_src/tools/xclbinutil/XclBinUtilities.cxx`.

use std::{collections::HashMap, ops::Range};

use crate::{
    error::{Error, Result},
    section::{Connectivity, MemTopology, Name, connectivity::Connection, mem_topology::Memory},
};

/// A connection to a bank that may be joined with others.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    connection: Connection,
    memory: usize,
    base: u64,
    size_bytes: u64,
}

/// The two sections, GROUP_TOPOLOGY first.
///
/// # Errors
/// A connection to a memory that is not there; a joined bank whose argument reaches further ones.
pub(crate) fn group(topology: &MemTopology, connectivity: &Connectivity) -> Result<(MemTopology, Connectivity)> {
    let mut grouped = topology.clone();
    let mut indices: HashMap<Memory, usize> = HashMap::new();
    for (index, bank) in topology.memories.iter().enumerate() {
        indices.entry(*bank).or_insert(index);
    }
    let (mut connections, mut candidates) = (Vec::new(), Vec::new());
    for connection in &connectivity.connections {
        match candidate(topology, *connection)? {
            Some(candidate) => candidates.push(candidate),
            None => connections.push(*connection),
        }
    }
    candidates.sort_by_key(|candidate| {
        (candidate.connection.ip.cast_unsigned(), candidate.connection.argument.cast_unsigned(), candidate.base)
    });
    for run in runs(&candidates) {
        let joined = candidates.get(run.clone()).unwrap_or_default();
        match joined {
            [first, _, ..] if is_only_run(&candidates, &run) => {
                let memory = index_of(&mut grouped, &mut indices, joined_bank(topology, first, joined))?;
                connections.push(Connection { memory, ..first.connection });
            }
            _ => connections.extend(joined.iter().map(|candidate| candidate.connection)),
        }
    }
    check_joined(topology.memories.len(), &connections)?;
    connections.extend_from_slice(&connectivity.connections);
    Ok((grouped, Connectivity { connections }))
}

fn candidate(topology: &MemTopology, connection: Connection) -> Result<Option<Candidate>> {
    let memory = usize::try_from(connection.memory).ok();
    let Some((index, bank)) = memory.and_then(|index| Some((index, topology.memories.get(index)?))) else {
        let bound = format!("MEM_TOPOLOGY has {} memories", topology.memories.len());
        return Err(Error::refused("memory index", connection.memory, bound));
    };
    let joins = matches!(bank.kind.name().as_str(), "MEM_DRAM" | "MEM_HBM" | "MEM_DDR3" | "MEM_DDR4");
    Ok((joins && bank.used != 0).then_some(Candidate {
        connection,
        memory: index,
        base: bank.base_address,
        size_bytes: bank.size_kib.wrapping_mul(1024),
    }))
}

/// Neighbours of one argument, as long as possible, in the order of the candidates.
fn runs(candidates: &[Candidate]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut next_base = 0_u64;
    let mut before: Option<&Candidate> = None;
    for (index, candidate) in candidates.iter().enumerate() {
        let end = index.saturating_add(1);
        let goes_on = before.is_some_and(|before| same_argument(before, candidate) && next_base == candidate.base);
        match runs.last_mut() {
            Some(run) if goes_on => run.end = end,
            _ => {
                next_base = candidate.base;
                runs.push(index..end);
            }
        }
        next_base = next_base.wrapping_add(candidate.size_bytes);
        before = Some(candidate);
    }
    runs
}

fn same_argument(a: &Candidate, b: &Candidate) -> bool {
    (a.connection.ip, a.connection.argument) == (b.connection.ip, b.connection.argument)
}

/// Whether the argument of a run has no other banks before or behind it.
fn is_only_run(candidates: &[Candidate], run: &Range<usize>) -> bool {
    let Some(first) = candidates.get(run.start) else { return false };
    let before = run.start.checked_sub(1).and_then(|index| candidates.get(index));
    let behind = candidates.get(run.end);
    !before.into_iter().chain(behind).any(|other| same_argument(first, other))
}

/// The first bank, as large as all, and named after the indices of all: `MBG[0:2,5]`.
fn joined_bank(topology: &MemTopology, first: &Candidate, joined: &[Candidate]) -> Memory {
    let mut bank = topology.memories.get(first.memory).copied().unwrap_or_default();
    bank.size_kib = joined.iter().fold(0_u64, |sum, candidate| sum.wrapping_add(candidate.size_bytes)) >> 10;
    let mut indices: Vec<usize> = joined.iter().map(|candidate| candidate.memory).collect();
    indices.sort_unstable();
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for index in indices {
        match parts.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(index) => *last = index,
            _ => parts.push((index, index)),
        }
    }
    let part = |(first, last): &(usize, usize)| {
        if first == last { first.to_string() } else { format!("{first}:{last}") }
    };
    let tag = format!("MBG[{}]", parts.iter().map(part).collect::<Vec<_>>().join(","));
    bank.tag = Name::cut(tag.as_bytes());
    bank
}

/// Where a bank is, after it was added if it was not there.
fn index_of(topology: &mut MemTopology, indices: &mut HashMap<Memory, usize>, bank: Memory) -> Result<i32> {
    let index = *indices.entry(bank).or_insert_with(|| {
        topology.memories.push(bank);
        topology.memories.len().saturating_sub(1)
    });
    i32::try_from(index).map_err(|_| Error::refused("memory index", index, "CONNECTIVITY counts with 31 bits"))
}

/// A joined bank (from index `n_memories` on) is all that its argument reaches.
fn check_joined(n_memories: usize, connections: &[Connection]) -> Result<()> {
    let mut counts: HashMap<(i32, i32), usize> = HashMap::new();
    for connection in connections {
        let count = counts.entry((connection.ip, connection.argument)).or_default();
        *count = count.saturating_add(1);
    }
    for connection in connections {
        let is_joined = usize::try_from(connection.memory).is_ok_and(|index| index >= n_memories);
        if is_joined && counts.get(&(connection.ip, connection.argument)).is_some_and(|count| *count > 1) {
            let value = format!("{} of unit {}", connection.argument, connection.ip);
            return Err(Error::refused("argument", value, "its memories are no neighbours, so they cannot be joined"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::section::mem_topology::MemType;

    fn bank(tag: &str, base_address: u64, size_kib: u64) -> Memory {
        let tag = Name::new(tag).unwrap();
        Memory { kind: MemType::DRAM, used: 1, size_kib, base_address, tag, ..Memory::default() }
    }

    fn connection(argument: i32, memory: i32) -> Connection {
        Connection { argument, ip: 0, memory }
    }

    fn check(memories: &[Memory], connections: &[(i32, i32)], grouped: &[(i32, i32)], tags: &[&str]) {
        let list = |pairs: &[(i32, i32)]| -> Vec<_> { pairs.iter().map(|(a, m)| connection(*a, *m)).collect() };
        let topology = MemTopology { memories: memories.to_vec() };
        let connectivity = Connectivity { connections: list(connections) };
        let (topology, connectivity) = group(&topology, &connectivity).unwrap();
        assert_eq!(connectivity.connections, [list(grouped), list(connections)].concat());
        let found: Vec<_> = topology.memories.iter().map(|memory| memory.tag.text()).collect();
        assert_eq!(found, tags);
    }

    #[test]
    fn joins_neighbours_of_one_argument() {
        let neighbours = [bank("A", 0, 4), bank("B", 0x1000, 4), bank("C", 0x2000, 4), bank("D", 0x9000, 4)];
        let tags = ["A", "B", "C", "D"];
        check(&neighbours, &[(0, 0), (1, 1)], &[(0, 0), (1, 1)], &tags);
        check(&neighbours, &[(0, 1), (0, 0)], &[(0, 4)], &["A", "B", "C", "D", "MBG[0:1]"]);
        // The same banks twice are one more bank.
        check(&neighbours, &[(0, 1), (0, 0), (1, 0), (1, 1)], &[(0, 4), (1, 4)], &["A", "B", "C", "D", "MBG[0:1]"]);
        // What is not all in one piece stays as it is.
        check(&neighbours, &[(0, 0), (0, 1), (0, 3)], &[(0, 0), (0, 1), (0, 3)], &tags);
    }

    #[test]
    fn refuses_a_memory_that_is_not_there() {
        for memory in [-1, 1] {
            let topology = MemTopology { memories: vec![bank("A", 0, 4)] };
            let connectivity = Connectivity { connections: vec![connection(0, memory)] };
            assert!(group(&topology, &connectivity).is_err());
        }
    }
}
