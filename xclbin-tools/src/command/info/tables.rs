//! The tables of `xclbin info`.

use xclbin_tools::{
    axlf::Axlf,
    section::{AiePartition, Contents, EmbeddedMetadata, MemTopology, embedded_metadata::Kernel},
};

use super::{Links, mode};
use crate::command::output::{table, word};

/// Rows of one table; `--json` has all.
const MOST_ROWS: usize = 1000;

/// Items of a list in a cell.
const MOST_ITEMS: usize = 16;

/// Everything, a table per subject.
pub(super) fn print(axlf: &Axlf<'_>, contents: &Contents<'_>) -> String {
    let mut text = header(axlf);
    let mut part = |title: &str, rows: &[Vec<String>]| {
        if rows.len() > 1 {
            // The heading is a row too.
            let shown = rows.get(..=MOST_ROWS).unwrap_or(rows);
            text.push_str(&format!("\n{title}\n{}", table(shown)));
            if shown.len() < rows.len() {
                let n_more = rows.len().saturating_sub(shown.len());
                text.push_str(&format!("and {n_more} more: --json lists all\n"));
            }
        }
    };
    part("Sections", &sections(axlf));
    if let Some(metadata) = &contents.metadata {
        let links = Links::of(contents);
        part("Kernels", &kernels(metadata, &links));
        for kernel in &metadata.kernels {
            part(&format!("Arguments of {}", word(&kernel.name)), &arguments(kernel, &links));
        }
    }
    if let Some(partition) = &contents.partition {
        part("Partition", &partition_rows(partition));
        part("PDIs", &pdis(partition));
    }
    part("Memories", &contents.mem_topology.as_ref().map(memories).unwrap_or_default());
    let faults = contents.faults.iter().map(|(kind, error)| vec![kind.to_string(), error.to_string()]);
    part("Sections that cannot be read", &headed(&["SECTION", "FAULT"], faults));
    text
}

/// Rows below their heading.
fn headed(heading: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Vec<Vec<String>> {
    let heading = heading.iter().map(|cell| (*cell).to_owned()).collect();
    std::iter::once(heading).chain(rows).collect()
}

fn header(axlf: &Axlf<'_>) -> String {
    let header = axlf.header();
    let version = header.version;
    let signature = match (header.signature_length, axlf.signature()) {
        (-1, _) => "none".to_owned(),
        (_, Some(signature)) => format!("{} bytes", signature.len()),
        (length, None) => format!("of {length} bytes is not in the file"),
    };
    let vbnv = header.platform_vbnv.text();
    let actions = header.actions().join(" ");
    let or_none = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
    let rows = [
        ("UUID", header.uuid.to_string()),
        ("Size", axlf.layout().map(|layout| format!("{} bytes", layout.file_bytes)).unwrap_or_default()),
        ("Packaged by XRT", format!("{}.{}.{}", version.major, version.minor, version.patch)),
        ("Created", date(header.timestamp)),
        ("Mode", mode(axlf)),
        ("Actions", or_none(&actions)),
        ("Platform", or_none(&vbnv)),
        ("Signature", signature),
        ("Mirror", if axlf.mirror().is_some() { "present" } else { "none" }.to_owned()),
    ];
    table(&rows.map(|(name, value)| vec![name.to_owned(), value]))
}

fn sections(axlf: &Axlf<'_>) -> Vec<Vec<String>> {
    let places = axlf.layout().map(|layout| &layout.places[..]).unwrap_or_default();
    let rows = axlf.sections().iter().zip(places).map(|(section, place)| {
        vec![section.kind.to_string(), format!("{:#x}", place.offset), place.size.to_string(), section.name.to_string()]
    });
    headed(&["KIND", "OFFSET", "BYTES", "NAME"], rows)
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let mut items = items.into_iter();
    let mut shown: Vec<String> = items.by_ref().take(MOST_ITEMS).map(|item| item.to_string()).collect();
    match items.count() {
        0 => {}
        n_more => shown.push(format!("and {n_more} more")),
    }
    shown.join(" ")
}

fn kernels(metadata: &EmbeddedMetadata, links: &Links) -> Vec<Vec<String>> {
    let rows = metadata.kernels.iter().map(|kernel| {
        let pdi = links.pdi(kernel).map(|(first, more)| match more {
            0 => first.to_string(),
            more => format!("{first} and {more} more"),
        });
        let id = kernel.extended_data.map(|data| format!("{:#x}", data.kernel_id)).unwrap_or_default();
        let n_arguments = kernel.arguments.len().to_string();
        vec![kernel.name.clone(), list(&kernel.instances), id, pdi.unwrap_or_default(), n_arguments]
    });
    headed(&["KERNEL", "INSTANCES", "ID", "PDI", "ARGUMENTS"], rows)
}

fn arguments(kernel: &Kernel, links: &Links) -> Vec<Vec<String>> {
    let rows = kernel.arguments.iter().map(|argument| {
        vec![
            argument.id.to_string(),
            argument.name.clone(),
            argument.kind.clone(),
            format!("{:#x}", argument.offset),
            argument.size_bytes.to_string(),
            links.memory(kernel, argument).cloned().unwrap_or_default(),
        ]
    });
    headed(&["ID", "NAME", "TYPE", "OFFSET", "BYTES", "MEMORY"], rows)
}

fn partition_rows(partition: &AiePartition<'_>) -> Vec<Vec<String>> {
    let row = vec![
        partition.column_width.to_string(),
        list(&partition.start_columns),
        partition.operations_per_cycle.to_string(),
        partition.inference_fingerprint.to_string(),
        partition.pre_post_fingerprint.to_string(),
    ];
    let heading = ["COLUMNS", "START COLUMNS", "OPERATIONS PER CYCLE", "FINGERPRINT", "PRE/POST FINGERPRINT"];
    headed(&heading, std::iter::once(row))
}

fn pdis(partition: &AiePartition<'_>) -> Vec<Vec<String>> {
    let rows = partition.pdis.iter().enumerate().flat_map(|(index, pdi)| {
        let head = [index.to_string(), pdi.image.len().to_string(), pdi.uuid.to_string()];
        pdi.groups.iter().enumerate().map(move |(nth, group)| {
            let head = if nth == 0 { head.clone() } else { Default::default() };
            let ids = |ids: &[u64]| list(ids.iter().map(|id| format!("{id:#x}")));
            let group = [
                group.name.to_string(),
                group.kind.name().to_owned(),
                format!("{:#x}", group.pdi_id),
                ids(&group.kernel_ids),
                ids(&group.pre_cdo_groups),
            ];
            head.into_iter().chain(group).collect()
        })
    });
    headed(&["PDI", "BYTES", "UUID", "GROUP", "TYPE", "PDI ID", "KERNEL IDS", "AFTER"], rows)
}

fn memories(topology: &MemTopology) -> Vec<Vec<String>> {
    let rows = topology.memories.iter().map(|memory| {
        vec![
            memory.tag.to_string(),
            memory.kind.name(),
            memory.size_kib.to_string(),
            format!("{:#x}", memory.base_address),
            if memory.used == 0 { "no" } else { "yes" }.to_owned(),
        ]
    });
    headed(&["TAG", "TYPE", "KIB", "BASE ADDRESS", "USED"], rows)
}

/// Seconds since 1970 and what date that is, by the rule of Howard Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html>).
fn date(seconds: u64) -> String {
    // Beyond the year 9999 the number says as much.
    if seconds >= 253_402_300_800 {
        return seconds.to_string();
    }
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC ({seconds})")
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn seconds_are_dates() {
        let check = |seconds, text: &str| assert_eq!(date(seconds), text);
        check(0, "1970-01-01 00:00:00 UTC (0)");
        check(951_827_696, "2000-02-29 12:34:56 UTC (951827696)");
        check(1_773_692_549, "2026-03-16 20:22:29 UTC (1773692549)");
        check(253_402_300_799, "9999-12-31 23:59:59 UTC (253402300799)");
        check(u64::MAX, "18446744073709551615");
    }
}
