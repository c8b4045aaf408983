//! Defects of partition, kernels, arguments and memories.

use std::borrow::Cow;

use xclbin_tools::{
    axlf::Uuid,
    section::{
        Name,
        aie_partition::CdoType,
        ip_layout::{Ip, IpType},
    },
    verify::Findings,
};

use super::{
    Row,
    sample::{CDO_NPU1, Kernel, Sample, argument, image},
};

/// The valid package, changed.
fn package(change: fn(&mut Sample)) -> Findings {
    changed(Sample::npu1(), change)
}

/// The valid package of two kernels, changed.
fn two(change: fn(&mut Sample)) -> Findings {
    changed(Sample::two(), change)
}

fn changed(mut sample: Sample, change: fn(&mut Sample)) -> Findings {
    change(&mut sample);
    sample.check()
}

/// The valid package, its kernel changed; connections follow.
fn kernel(change: fn(&mut Kernel)) -> Findings {
    let mut sample = Sample::npu1();
    change(&mut sample.kernels[0]);
    sample.reconnect();
    sample.check()
}

/// Arguments up to the count, with as many buffers.
fn buffers(kernel: &mut Kernel, count: u64) {
    kernel.arguments.truncate(3);
    kernel.arguments.extend((0..count).map(|index| argument(&format!("b{index}"), true, 8, 0x14 + 8 * index)));
}

fn partition() -> Vec<Row> {
    vec![
        ("column-width", &[], || package(|it| it.partition.column_width = 0)),
        ("column-width", &[], || package(|it| it.partition.column_width = 9)),
        ("start-column", &[], || package(|it| it.partition.start_columns = vec![])),
        ("start-column-duplicate", &[], || package(|it| it.partition.start_columns = vec![1, 1])),
        ("start-column", &[], || package(|it| it.partition.start_columns = vec![8])),
        // npu1, as the stream says, has five columns.
        ("start-column", &[], || package(|it| it.partition.start_columns = vec![0, 5, 9])),
        ("start-column-driver", &[], || {
            changed(Sample::npu4(), |it| {
                it.partition.column_width = 3;
                it.partition.start_columns = vec![1];
            })
        }),
        ("operations-per-cycle", &[], || package(|it| it.partition.operations_per_cycle = 0)),
        ("partition-without-pdi", &["kernel-without-pdi"], || package(|it| it.partition.pdis.clear())),
        ("pdi-without-image", &[], || package(|it| it.partition.pdis[0].image = Cow::Borrowed(&[]))),
        ("partition-without-primary", &[], || package(|it| it.partition.pdis[0].groups[0].kind = CdoType(2))),
        ("group-type", &[], || package(|it| it.partition.pdis[0].groups[0].kind = CdoType(4))),
        ("group-without-kernel", &["kernel-without-pdi"], || {
            package(|it| it.partition.pdis[0].groups[0].kernel_ids.clear())
        }),
        ("group-without-kernel", &["kernel-without-pdi"], || two(|it| it.partition.pdis[1].groups.clear())),
        ("pdi-id-duplicate", &[], || two(|it| it.partition.pdis[1].groups[0].pdi_id = 1)),
        ("pdi-uuid-duplicate", &[], || two(|it| it.partition.pdis[1].uuid = it.partition.pdis[0].uuid)),
        ("pdi-image-duplicate", &[], || two(|it| it.partition.pdis[1].image = it.partition.pdis[0].image.clone())),
        ("kernel-count", &[], || {
            package(|it| {
                for index in 1..33_u32 {
                    let name = Box::leak(format!("K{index}").into_boxed_str());
                    let image = image(&format!("{CDO_NPU1}\nwrite tile(0,1)+0xc0020 value={index}\n"));
                    it.add(Kernel::new(name, 0x901 + u64::from(index)), image);
                    let index = u8::try_from(index).unwrap();
                    it.partition.pdis[usize::from(index)].uuid = Uuid([index; 16]);
                }
                it.partition.pdis[0].uuid = Uuid::default();
            })
        }),
    ]
}

fn kernels() -> Vec<Row> {
    vec![
        ("kernel-missing", &["unit-without-kernel", "kernel-no-id", "pdi-without-kernel"], || {
            kernel(|it| it.subtype = None)
        }),
        ("kernel-no-id", &["unit-without-kernel", "pdi-without-kernel"], || two(|it| it.kernels[1].subtype = None)),
        ("kernel-name-duplicate", &[], || {
            two(|it| {
                it.kernels[1].name = it.kernels[0].name;
                it.layout.ips[1].name = it.layout.ips[0].name;
                it.layout.ips.remove(1);
                it.reconnect();
                it.connections.connections.retain(|it| it.ip == 0);
                it.group_connections.connections.retain(|it| it.ip == 0);
                it.kernels[1].id = 0x901;
                it.kernels[1].subtype = Some(0);
                it.partition.pdis.remove(1);
            })
        }),
        ("kernel-without-pdi", &["pdi-without-kernel"], || {
            package(|it| it.partition.pdis[0].groups[0].kernel_ids[0] = 0x902)
        }),
        ("kernel-without-pdi", &["kernel-id-wide"], || {
            package(|it| {
                it.kernels[0].id = 0x1_0901;
                it.partition.pdis[0].groups[0].kernel_ids[0] = 0x1_0901;
            })
        }),
        ("kernel-without-unit", &["unit-without-kernel"], || {
            package(|it| it.layout.ips[0].name = Name::new("PASS:TWO").unwrap())
        }),
        ("unit-without-kernel", &[], || {
            package(|it| it.layout.ips.push(Ip::dpu(Name::new("GHOST:ONE").unwrap(), 0x902, 0)))
        }),
        ("kernel-type", &[], || package(|it| it.layout.ips[0].kind = IpType::KERNEL)),
        ("kernel-subtype", &[], || package(|it| it.layout.ips[0].properties &= !3)),
        ("kernel-functional", &[], || package(|it| it.layout.ips[0].properties |= 1 << 4)),
        ("kernel-id-differs", &[], || package(|it| it.layout.ips[0].properties ^= 3 << 16)),
        ("kernel-id-wide", &[], || {
            package(|it| {
                it.kernels[0].id = 0x1010;
                it.layout.ips[0] = Ip::dpu(it.layout.ips[0].name, 0x010, 0);
                it.partition.pdis[0].groups[0].kernel_ids[0] = 0x1010;
            })
        }),
        // The second kernel takes the first one's id: its own image is nobody's then.
        ("kernel-id-duplicate", &["pdi-without-kernel"], || {
            two(|it| {
                it.kernels[1].id = 0x901;
                it.layout.ips[1] = Ip::dpu(it.layout.ips[1].name, 0x901, 0);
            })
        }),
        ("kernel-id-duplicate", &["kernel-id-wide"], || {
            two(|it| {
                it.kernels[1].id = 0x1901;
                it.layout.ips[1] = Ip::dpu(it.layout.ips[1].name, 0x901, 0);
                it.partition.pdis[1].groups[0].kernel_ids[0] = 0x1901;
            })
        }),
        ("kernel-alias", &[], || package(|it| it.add_kernel(Kernel::new("AGAIN", 0x901)))),
        // Two packages merged without new ids.
        ("kernel-in-two-pdis", &["kernel-id-duplicate"], || {
            two(|it| {
                it.kernels[1].id = 0x901;
                it.layout.ips[1] = Ip::dpu(it.layout.ips[1].name, 0x901, 0);
                it.partition.pdis[1].groups[0].kernel_ids[0] = 0x901;
            })
        }),
        ("pdi-without-kernel", &[], || package(|it| it.partition.pdis[0].groups[0].kernel_ids.push(0x902))),
    ]
}

fn arguments() -> Vec<Row> {
    vec![
        // Instructions and their count change places.
        ("argument-abi", &[], || {
            kernel(|it| {
                it.arguments[1].3 = 0xc;
                it.arguments[2].3 = 8;
            })
        }),
        ("argument-abi", &[], || kernel(|it| it.arguments[0].1 = true)),
        ("argument-overlap", &[], || kernel(|it| it.arguments[4].3 -= 4)),
        ("argument-too-few", &[], || kernel(|it| buffers(it, 4))),
        ("argument-too-few", &[], || {
            kernel(|it| {
                buffers(it, 5);
                it.arguments[7] = argument("n", false, 4, 0x34);
            })
        }),
        ("argument-too-many", &[], || kernel(|it| buffers(it, 17))),
        ("argument-duplicate", &[], || kernel(|it| it.arguments[4].0 = it.arguments[3].0.clone())),
        ("argument-size", &[], || kernel(|it| it.arguments[5].2 = 4)),
    ]
}

fn memories() -> Vec<Row> {
    vec![
        ("connection-range", &["argument-without-memory", "group-contradiction"], || {
            package(|it| it.connections.connections[2].ip = 1)
        }),
        ("connection-range", &["argument-without-memory"], || {
            package(|it| {
                it.connections.connections[2].argument = 8;
                it.group_connections.connections[2].argument = 8;
            })
        }),
        ("connection-range", &[], || package(|it| it.connections.connections[2].memory = 2)),
        ("connection-range", &[], || package(|it| it.group_connections.connections[0].memory = -1)),
        ("argument-without-memory", &[], || {
            package(|it| {
                it.connections.connections.pop();
                it.group_connections.connections.pop();
            })
        }),
        ("memory-unused", &[], || package(|it| it.memories.memories[0].used = 0)),
        ("group-contradiction", &[], || package(|it| it.group_connections.connections.truncate(5))),
        ("group-contradiction", &["connection-range"], || package(|it| it.group_memories.memories.truncate(1))),
    ]
}

pub(crate) fn rows() -> Vec<Row> {
    [partition(), kernels(), arguments(), memories()].concat()
}
