//! How a product by matrix instructions is cut into workgroups: pure, so that it is tested without a device.
//!
//! With many rows of x the arithmetic takes the time: large tiles, whose subgroups share what one of them
//! brings. With few, reading the weight does: the subgroups of a small tile share the columns instead.

use std::{fmt, str::FromStr};

/// The shape of one matrix instruction: rows of the weight, rows of x, columns.
pub(crate) type MatrixShape = [u32; 3];

/// Columns of a slab.
const SLAB: u32 = 64;
/// Bytes of a row of a slab in shared memory, with its pad.
const SLAB_BYTES: u32 = 144;

/// Whether kernels use matrix instructions, where a device has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Matrices {
    /// As the sizes of each op suggest.
    #[default]
    Auto,
    /// Nowhere.
    Never,
    /// As by [`Matrices::Auto`], with this tile for every product that they compute.
    Tile(MatrixTile),
}

/// What one workgroup computes of a product, and how its subgroups share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MatrixTile {
    /// Rows of the weight.
    pub rows: u32,
    /// Rows of x.
    pub tokens: u32,
    /// Among subgroups.
    pub share: Share,
}

/// How the subgroups of a workgroup share a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Share {
    /// Each computes a part of the tile.
    Parts {
        /// Rows of the weight of a part.
        rows: u32,
        /// Rows of x of a part.
        tokens: u32,
        /// Slabs in shared memory: one, or two for a barrier less; 0 for one whose x stays in no register meanwhile.
        buffers: u32,
    },
    /// Each computes all of the tile over some of the columns.
    Columns {
        /// How many subgroups.
        subgroups: u32,
        /// As of [`Share::Parts`], in the shared memory of each.
        buffers: u32,
    },
    /// Each computes some rows of the weight, which it decodes where it multiplies them.
    Direct {
        /// Rows of the weight of each.
        rows: u32,
        /// Slabs of x that are stored in shared memory at a time: 1, 2 or 4.
        stage: u32,
        /// How many workgroups share the columns.
        splits: u32,
    },
}

const fn parts(rows: u32, tokens: u32, part_rows: u32, part_tokens: u32, buffers: u32) -> MatrixTile {
    MatrixTile { rows, tokens, share: Share::Parts { rows: part_rows, tokens: part_tokens, buffers } }
}

/// The most rows of x for which the subgroups share the columns.
const FEW_TOKENS: usize = 64;

/// Shared memory that devices with matrix instructions have for a workgroup.
const SHARED_BYTES: u32 = 48 << 10;

/// Tiles for many rows of x, largest first.
const LARGE: [MatrixTile; 3] = [parts(128, 128, 64, 64, 0), parts(64, 128, 64, 32, 0), parts(64, 64, 32, 16, 2)];

/// Tiles among which tuning chooses by measuring.
pub(crate) const TRIED: [MatrixTile; 4] = [LARGE[0], parts(128, 128, 64, 32, 0), LARGE[1], LARGE[2]];

/// The most elements of a part whose sums every driver's compiler holds in registers.
const SMALL_PART: u32 = 64 * 32;

impl MatrixTile {
    /// The tile for products of `x_rows` with weights of `weight_rows` together: the largest with which every one of
    /// `compute_units` has a workgroup, else the smallest. Chosen on an H200; `prompt_tile`, which was measured on the
    /// device, goes before. `prompt_tile` and `large_parts` as in `Tuning`.
    pub(crate) fn choose(
        (x_rows, weight_rows): (usize, usize),
        compute_units: u32,
        (prompt_tile, large_parts): (Option<MatrixTile>, bool),
        shape: MatrixShape,
    ) -> MatrixTile {
        let occupies = |tile: &MatrixTile| {
            weight_rows.div_ceil(tile.rows as usize) * x_rows.div_ceil(tile.tokens as usize) >= compute_units as usize
        };
        let tile = if x_rows <= FEW_TOKENS {
            let tokens = x_rows.next_power_of_two().max(16) as u32;
            let of = |rows: u32| {
                // As many subgroups as 48 KiB of shared memory hold.
                let most = SHARED_BYTES / ((rows + tokens) * SLAB_BYTES);
                let subgroups = if most >= 8 { 8 } else { 1 << most.ilog2() };
                MatrixTile { rows, tokens, share: Share::Columns { subgroups, buffers: 0 } }
            };
            if tokens <= 32 && occupies(&of(32)) { of(32) } else { of(16) }
        } else {
            let [.., smallest] = LARGE;
            let fits = |tile: &MatrixTile| large_parts || tile.rows * tile.tokens <= tile.subgroups() * SMALL_PART;
            prompt_tile.into_iter().chain(LARGE.into_iter().filter(fits)).find(occupies).unwrap_or(smallest)
        };
        tile.scaled(shape)
    }

    /// The tile for few rows of x where kernels know how matrices lie. Chosen on an H200.
    pub(crate) fn direct(
        x_rows: usize,
        weight_rows: usize,
        columns: usize,
        compute_units: u32,
        shape: MatrixShape,
    ) -> MatrixTile {
        const ROWS: u32 = 128;
        // What a workgroup takes of the columns at a time, and how often it should at least.
        const RUN: usize = 256;
        const LEAST_RUNS: usize = 3;
        let tokens = x_rows.min(FEW_TOKENS).next_power_of_two().max(16) as u32;
        let tiles = weight_rows.div_ceil(ROWS as usize);
        let units = compute_units as usize;
        let splits = if tiles >= units { 1 } else { (2 * units / tiles).min(columns.div_ceil(RUN) / LEAST_RUNS) };
        // Two stages fit into shared memory.
        let stage = if tokens <= 32 { 4 } else { 2 };
        let share = Share::Direct { rows: 32, stage, splits: splits.max(1) as u32 };
        MatrixTile { rows: ROWS, tokens, share }.scaled(shape)
    }

    /// Tiles of a product, and floats that their workgroups leave for each other.
    pub(crate) fn sums(&self, x_rows: usize, weight_rows: usize) -> (usize, usize) {
        let tiles = x_rows.div_ceil(self.tokens as usize) * weight_rows.div_ceil(self.rows as usize);
        match self.share {
            Share::Direct { splits, .. } if splits > 1 => {
                (tiles, tiles * splits as usize * (self.rows * self.tokens) as usize)
            }
            _ => (tiles, 0),
        }
    }

    /// The tile with as many matrices of `shape` as it has of 16 by 16.
    pub(crate) fn scaled(self, [m, n, _]: MatrixShape) -> MatrixTile {
        let (by_m, by_n) = (|rows: u32| rows * m / 16, |tokens: u32| tokens * n / 16);
        let share = match self.share {
            Share::Parts { rows, tokens, buffers } => Share::Parts { rows: by_m(rows), tokens: by_n(tokens), buffers },
            Share::Direct { rows, stage, splits } => Share::Direct { rows: by_m(rows), stage, splits },
            columns @ Share::Columns { .. } => columns,
        };
        MatrixTile { rows: by_m(self.rows), tokens: by_n(self.tokens), share }
    }

    /// How many subgroups a workgroup has.
    pub(crate) fn subgroups(&self) -> u32 {
        match self.share {
            Share::Parts { rows, tokens, .. } => (self.rows / rows) * (self.tokens / tokens),
            Share::Columns { subgroups, .. } => subgroups,
            Share::Direct { rows, .. } => self.rows / rows,
        }
    }

    /// Shared memory of a workgroup; the kernels reckon it alike.
    pub(crate) fn shared_bytes(&self, [_, n, _]: MatrixShape) -> u32 {
        // What a subgroup lays its sums out in.
        let patch = |rows: u32| n * (rows + 4) * 4;
        let slab = (self.rows + self.tokens) * SLAB_BYTES;
        match self.share {
            Share::Parts { rows, buffers, .. } => (buffers.max(1) * slab).max(self.subgroups() * patch(rows)),
            Share::Columns { subgroups, buffers } => subgroups * (buffers.max(1) * slab).max(patch(self.rows)),
            Share::Direct { rows, stage, .. } => {
                (2 * stage * self.tokens * SLAB_BYTES).max(self.subgroups() * patch(rows))
            }
        }
    }

    /// Why the kernels cannot run the tile, if they cannot.
    pub(crate) fn fault(
        &self,
        shape: MatrixShape,
        subgroup: u32,
        max_lanes: u32,
        max_shared_bytes: u32,
    ) -> Option<String> {
        let [m, n, k] = shape;
        let whole = |rows: u32, tokens: u32| {
            rows > 0 && tokens > 0 && rows.is_multiple_of(m) && tokens.is_multiple_of(n) && rows.is_multiple_of(4)
        };
        let divides = match self.share {
            Share::Parts { rows, tokens, buffers } => {
                whole(rows, tokens)
                    && self.rows.is_multiple_of(rows)
                    && self.tokens.is_multiple_of(tokens)
                    && buffers <= 2
            }
            Share::Columns { subgroups, buffers } => {
                whole(self.rows, self.tokens)
                    && subgroups > 0
                    && buffers <= 2
                    && (self.rows * 4).is_multiple_of(subgroup)
                    && (self.tokens * 8).is_multiple_of(subgroup)
            }
            Share::Direct { rows, stage, splits } => {
                whole(rows, self.tokens) && self.rows.is_multiple_of(rows) && splits > 0 && [1, 2, 4].contains(&stage)
            }
        };
        if !divides || !SLAB.is_multiple_of(k) || k % 8 != 0 {
            return Some(format!("tile {self} is not made of matrices of {m}x{n}x{k} and subgroups of {subgroup}"));
        }
        let (lanes, bytes) = (self.subgroups().saturating_mul(subgroup), self.shared_bytes(shape));
        if lanes > max_lanes || bytes > max_shared_bytes {
            return Some(format!(
                "tile {self} takes {lanes} lanes and {bytes} bytes of shared memory, at most {max_lanes} and \
                 {max_shared_bytes} are there"
            ));
        }
        None
    }
}

/// `64x64/32x32`: subgroups by parts, `/2` behind it for two buffers; `32x16*8`: eight subgroups by columns,
/// `*2` behind it for two buffers; `128x16@32*4*2`: subgroups of 32 rows, four slabs at a time, two splits.
impl fmt::Display for MatrixTile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MatrixTile { rows, tokens, share } = self;
        match share {
            Share::Parts { rows: r, tokens: t, buffers } => write!(f, "{rows}x{tokens}/{r}x{t}/{buffers}"),
            Share::Columns { subgroups, buffers } => write!(f, "{rows}x{tokens}*{subgroups}*{buffers}"),
            Share::Direct { rows: r, stage, splits } => write!(f, "{rows}x{tokens}@{r}*{stage}*{splits}"),
        }
    }
}

impl FromStr for MatrixTile {
    type Err = String;

    fn from_str(text: &str) -> Result<MatrixTile, String> {
        let fault = || format!("`{text}` is no tile such as 128x128/64x32/1 or 32x16*4*1");
        let number = |text: &str| text.parse::<u32>().ok().filter(|n| (1..=1024).contains(n)).ok_or_else(fault);
        let buffers = |rest: &[&str]| rest.first().map_or(Ok(1), |text| text.parse::<u32>().map_err(|_| fault()));
        let pair = |text: &str| -> Result<(u32, u32), String> {
            let (a, b) = text.split_once('x').ok_or_else(fault)?;
            Ok((number(a)?, number(b)?))
        };
        if let Some((whole, share)) = text.split_once('@') {
            let (rows, tokens) = pair(whole)?;
            let numbers = share.split('*').map(number).collect::<Result<Vec<u32>, String>>()?;
            let &[part, stage, splits] = numbers.as_slice() else { return Err(fault()) };
            let share = Share::Direct { rows: part, stage, splits };
            return Ok(MatrixTile { rows, tokens, share });
        }
        let by_parts: Vec<&str> = text.split('/').collect();
        let by_columns: Vec<&str> = text.split('*').collect();
        let (whole, share) = match (by_parts.as_slice(), by_columns.as_slice()) {
            ([whole, part, rest @ ..], _) if rest.len() <= 1 => {
                let (rows, tokens) = pair(part)?;
                (whole, Share::Parts { rows, tokens, buffers: buffers(rest)? })
            }
            (_, [whole, subgroups, rest @ ..]) if rest.len() <= 1 => {
                (whole, Share::Columns { subgroups: number(subgroups)?, buffers: buffers(rest)? })
            }
            _ => return Err(fault()),
        };
        let (rows, tokens) = pair(whole)?;
        Ok(MatrixTile { rows, tokens, share })
    }
}

#[cfg(test)]
mod tests {
    use super::MatrixTile;

    const SHAPE: [u32; 3] = [16, 16, 16];

    fn check(x_rows: usize, weight_rows: usize, compute_units: u32, expected: &str) {
        let tile = MatrixTile::choose((x_rows, weight_rows), compute_units, (None, false), SHAPE);
        assert_eq!(tile.to_string(), expected);
    }

    #[test]
    fn parts_are_large_where_registers_hold_them() {
        let check = |weight_rows, expected: &str| {
            assert_eq!(MatrixTile::choose((512, weight_rows), 132, (None, true), SHAPE).to_string(), expected);
        };
        check(28672, "128x128/64x64/0");
        check(4096, "64x128/64x32/0");
        check(1024, "64x64/32x16/2");
    }

    #[test]
    fn what_was_measured_goes_before_where_it_occupies_the_device() {
        let check = |weight_rows, expected: &str| {
            let measured = "128x128/64x32/0".parse().ok();
            let tile = MatrixTile::choose((512, weight_rows), 132, (measured, false), SHAPE);
            assert_eq!(tile.to_string(), expected);
        };
        check(28672, "128x128/64x32/0");
        check(4096, "64x128/64x32/0");
    }

    #[test]
    fn the_tile_follows_from_sizes() {
        // A large GPU.
        check(512, 28672, 132, "64x128/64x32/0");
        check(512, 4096, 132, "64x128/64x32/0");
        check(512, 1024, 132, "64x64/32x16/2");
        check(8, 28672, 132, "32x16*4*0");
        check(33, 4096, 132, "16x64*4*0");
        // A small one.
        check(512, 4096, 16, "64x128/64x32/0");
        check(512, 1024, 16, "64x128/64x32/0");
        check(16, 1024, 16, "32x16*4*0");
    }

    #[test]
    fn workgroups_share_columns_where_rows_are_few() {
        let check = |x_rows, weight_rows, columns, expected: &str| {
            let tile = MatrixTile::direct(x_rows, weight_rows, columns, 132, SHAPE);
            assert_eq!((tile.to_string().as_str(), tile.fault(SHAPE, 32, 256, 48 << 10)), (expected, None));
        };
        check(16, 28672, 4096, "128x16@32*4*1");
        check(32, 4096, 14336, "128x32@32*4*8");
        check(33, 4096, 4096, "128x64@32*2*5");
        check(5, 1024, 256, "128x16@32*4*1");
    }

    #[test]
    fn every_choice_fits_what_devices_have_at_least() {
        // Matrices and subgroups of AMD and NVIDIA, and of Mesa's driver on the CPU.
        for (shape, subgroup, shared) in [(SHAPE, 32, 48 << 10), ([8, 8, 8], 8, 32 << 10)] {
            for x_rows in [5, 8, 16, 17, 33, 64, 65, 512, 4096] {
                for weight_rows in [1, 64, 1024, 4096, 262_144] {
                    for (units, large) in [(1, true), (16, false), (132, true)] {
                        let tile = MatrixTile::choose((x_rows, weight_rows), units, (None, large), shape);
                        assert_eq!(tile.fault(shape, subgroup, 256, shared), None);
                    }
                }
            }
        }
    }

    #[test]
    fn tiles_are_read_as_they_are_written() {
        for text in ["128x256/64x64/1", "32x16*8*2", "32x16*8*0", "128x16@32*4*2"] {
            assert_eq!(text.parse::<MatrixTile>().unwrap().to_string(), text);
        }
        assert_eq!("32x16*8".parse::<MatrixTile>().unwrap().to_string(), "32x16*8*1");
        for text in ["", "32x16", "32*8", "0x16*8", "32x16*8*2*2", "32x16@8*2", "99999999x16*8"] {
            assert!(text.parse::<MatrixTile>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let fault = |text: &str| text.parse::<MatrixTile>().unwrap().fault(SHAPE, 32, 256, 48 << 10);
        assert!(fault("128x128/64x24").is_some_and(|cause| cause.contains("not made of")));
        assert!(fault("256x256/64x64").is_some_and(|cause| cause.contains("512 lanes")));
        assert!(fault("128x256/64x64/1").is_some_and(|cause| cause.contains("55296 bytes")));
    }
}
