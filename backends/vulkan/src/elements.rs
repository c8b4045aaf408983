//! Which elements of a matrix an invocation holds. Vulkan leaves that to the driver; where it follows a pattern that
//! kernels can (`matmul_direct.comp`), they need not send a matrix through shared memory. Pure: the device that tells
//! is elsewhere.

use crate::tile::MatrixShape;

/// Components of an invocation that the kernel `matrix_layout` reports, of either factor.
pub(crate) const MOST: usize = 16;

/// How both factors lie. A row here is a row of the weight's matrix, and of x.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Elements {
    /// Neighbouring invocations that share a row.
    row_lanes: u32,
    /// Rows of which an invocation has a part.
    lane_rows: u32,
    /// Whether pairs of components alternate between these rows, of the weight and of x.
    alternates: [bool; 2],
}

impl Elements {
    /// Specialisation constants of the kernels.
    pub(crate) fn words(self) -> [u32; 4] {
        let [w, x] = self.alternates.map(u32::from);
        [self.row_lanes, self.lane_rows, w, x]
    }

    /// Whether the invocations that share a row load whole lines of the cache together.
    pub(crate) fn are_whole_lines(self) -> bool {
        self.row_lanes == 4
    }

    /// What a device reported: for each factor and invocation, the number of each component's element from 1 on, 0
    /// for none. Elements are numbered along the rows. `None` if they follow no pattern that the kernels know.
    pub(crate) fn of(found: &[u32], subgroup: u32, [m, n, k]: MatrixShape) -> Option<Elements> {
        let lanes = subgroup as usize;
        let (w, x) = (found.get(..lanes * MOST)?, found.get(lanes * MOST..2 * lanes * MOST)?);
        for row_lanes in [8, 4, 2, 1] {
            for lane_rows in [1, 2, 8] {
                let along = |found: &[u32], height: u32| {
                    let fits = [false, true].map(|alternates| {
                        let side = Side { height, k, row_lanes, lane_rows, alternates };
                        side.columns(found, lanes).map(|columns| (alternates, columns))
                    });
                    fits.into_iter().flatten().next()
                };
                if let (Some((w_alternates, of_w)), Some((x_alternates, of_x))) = (along(w, m), along(x, n))
                    && of_w == of_x
                {
                    return Some(Elements { row_lanes, lane_rows, alternates: [w_alternates, x_alternates] });
                }
            }
        }
        None
    }
}

/// A pattern of one factor.
struct Side {
    height: u32,
    k: u32,
    row_lanes: u32,
    lane_rows: u32,
    alternates: bool,
}

impl Side {
    /// By place in a row: the column that lies there, if the factor follows the pattern.
    fn columns(&self, found: &[u32], lanes: usize) -> Option<Vec<u32>> {
        let own = self.k / self.row_lanes;
        let between = self.height / self.lane_rows;
        let held = own > 0 && between > 0 && (self.lane_rows * own) as usize <= MOST;
        let all_rows = (self.row_lanes * between) as usize <= lanes;
        if !held || !all_rows || (self.alternates && own < 2) {
            return None;
        }
        let mut columns = vec![u32::MAX; self.k as usize];
        for (lane, components) in (0u32..).zip(found.chunks(MOST)).take(lanes) {
            for (i, &number) in (0u32..).zip(components) {
                let pair = i / 2;
                let (which, place) = match self.alternates {
                    true => (pair % self.lane_rows, pair / self.lane_rows * 2 + i % 2),
                    false => (i / own, i % own),
                };
                if which >= self.lane_rows || place >= own {
                    // More components than elements.
                    if number != 0 {
                        return None;
                    }
                    continue;
                }
                let element = number.checked_sub(1)?;
                let row = which * between + lane / self.row_lanes % between;
                if element / self.k != row {
                    return None;
                }
                let column = &mut columns[(lane % self.row_lanes * own + place) as usize];
                if *column != u32::MAX && *column != element % self.k {
                    return None;
                }
                *column = element % self.k;
            }
        }
        (0..self.k).all(|column| columns.contains(&column)).then_some(columns)
    }
}

#[cfg(test)]
mod tests {
    use super::{Elements, MOST};

    /// What a device would report whose invocation's component is the element (row, column) of either factor.
    fn found(lanes: u32, own: u32, k: u32, element: impl Fn(u32, u32) -> (u32, u32)) -> Vec<u32> {
        let mut found = vec![0; 2 * lanes as usize * MOST];
        for (i, components) in found.chunks_mut(MOST).enumerate() {
            for c in 0..own {
                let (row, column) = element(i as u32 % lanes, c);
                components[c as usize] = row * k + column + 1;
            }
        }
        found
    }

    /// As on an NVIDIA H200.
    fn quads(lane: u32, c: u32) -> (u32, u32) {
        (lane / 4 + c / 4 * 8, lane % 4 * 2 + c / 2 % 2 * 8 + c % 2)
    }

    #[test]
    fn four_invocations_share_two_rows() {
        let elements = Elements::of(&found(32, 8, 16, quads), 32, [16; 3]).unwrap();
        assert_eq!(elements.words(), [4, 2, 0, 0]);
        assert!(elements.are_whole_lines());
        let alternating = found(32, 8, 16, |lane, c| quads(lane, c & 1 | (c & 2) << 1 | (c & 4) >> 1));
        assert_eq!(Elements::of(&alternating, 32, [16; 3]).unwrap().words(), [4, 2, 1, 1]);
    }

    #[test]
    fn an_invocation_has_a_row_or_a_column() {
        // As on gfx11, where both halves of a subgroup have the same, and by Mesa's driver on the CPU.
        let rows = Elements::of(&found(32, 16, 16, |lane, c| (lane % 16, c)), 32, [16; 3]).unwrap();
        assert_eq!(rows.words(), [1, 1, 0, 0]);
        let columns = Elements::of(&found(8, 8, 8, |lane, c| (c, lane)), 8, [8; 3]).unwrap();
        assert_eq!(columns.words(), [8, 8, 0, 0]);
        assert!(!rows.are_whole_lines() && !columns.are_whole_lines());
    }

    #[test]
    fn what_follows_no_pattern_is_not_used() {
        let check = |found: &[u32]| assert_eq!(Elements::of(found, 32, [16; 3]), None);
        let mut known = found(32, 8, 16, quads);
        check(&known[1..]);
        known.swap(MOST, 2 * MOST);
        check(&known);
        check(&vec![0; known.len()]);
        check(&vec![u32::MAX; known.len()]);
        // The weight's columns in another order than those of x.
        let mut mixed = found(32, 8, 16, quads);
        let other = found(32, 8, 16, |lane, c| quads(lane, c ^ 1));
        mixed[..32 * MOST].copy_from_slice(&other[..32 * MOST]);
        check(&mixed);
    }
}
