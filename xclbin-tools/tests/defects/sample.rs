//! Valid files, made by the library's own writers, for defects to be planted in.

use std::{borrow::Cow, fmt::Write};

use xclbin_tools::{
    array::Device,
    axlf::{Axlf, Header, Kind, Section, Uuid},
    cdo, pdi,
    section::{
        AiePartition, Connectivity, IpLayout, MemTopology, Name,
        aie_partition::{CdoGroup, CdoType, Pdi},
        connectivity::Connection,
        ip_layout::Ip,
        mem_topology::{MemType, Memory},
    },
    txn,
    verify::{self, Findings, Launch},
};

/// A kernel as EMBEDDED_METADATA has it.
#[derive(Clone)]
pub(crate) struct Kernel {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) id: u64,
    pub(crate) functional: u64,
    pub(crate) arguments: Vec<Argument>,
    /// None leaves extended-data out.
    pub(crate) subtype: Option<u64>,
}

/// Name, whether it is a buffer, bytes, offset; its id is its place.
pub(crate) type Argument = (String, bool, u64, u64);

impl Kernel {
    /// With five buffers, as compilers declare them.
    pub(crate) fn new(name: &'static str, id: u64) -> Kernel {
        let mut arguments =
            vec![argument("opcode", false, 8, 0), argument("instr", true, 8, 8), argument("ninstr", false, 4, 0x10)];
        arguments.extend((0..5).map(|index| argument(&format!("bo{index}"), true, 8, 0x14 + 8 * index)));
        Kernel { name, kind: "dpu", id, functional: 0, arguments, subtype: Some(1) }
    }

    fn xml(&self) -> String {
        let Kernel { name, kind, id, functional, .. } = self;
        let mut xml = format!("<kernel name=\"{name}\" language=\"c\" type=\"{kind}\">");
        if let Some(subtype) = self.subtype {
            let _ = write!(
                xml,
                "<extended-data subtype=\"{subtype}\" functional=\"{functional}\" dpu_kernel_id=\"{id:#x}\"/>"
            );
        }
        for (index, (name, is_buffer, size, offset)) in self.arguments.iter().enumerate() {
            let qualifier = u8::from(*is_buffer);
            let _ = write!(
                xml,
                "<arg name=\"{name}\" addressQualifier=\"{qualifier}\" id=\"{index}\" size=\"{size:#x}\" \
                 offset=\"{offset:#x}\" hostOffset=\"0x0\" hostSize=\"{size:#x}\" type=\"void*\"/>"
            );
        }
        xml.push_str("<instance name=\"ONE\"/></kernel>");
        xml
    }
}

pub(crate) fn argument(name: &str, is_buffer: bool, size: u64, offset: u64) -> Argument {
    (name.to_owned(), is_buffer, size, offset)
}

/// A package as models.
pub(crate) struct Sample {
    pub(crate) header: Header,
    pub(crate) kernels: Vec<Kernel>,
    pub(crate) partition: AiePartition<'static>,
    pub(crate) layout: IpLayout,
    pub(crate) memories: MemTopology,
    pub(crate) connections: Connectivity,
    pub(crate) group_memories: MemTopology,
    pub(crate) group_connections: Connectivity,
    /// Text forms of the streams that are launched with it.
    pub(crate) streams: Vec<String>,
    /// The kernel that they are launched with.
    pub(crate) kernel: Option<&'static str>,
    pub(crate) device: Option<&'static Device>,
}

pub(crate) const CDO_NPU1: &str = include_str!("../fixtures/passthrough.cdo.txt");
pub(crate) const CDO_NPU4: &str = include_str!("../fixtures/passthrough-npu4.cdo.txt");

/// Host memory to host memory: one descriptor each way, one column.
pub(crate) const STREAM: &str = "\
stream version=0.1 generation=3 rows=6 columns=1 memory_tile_rows=1
block_write tile(0,0)+0x1d000
    0x400 0x0 0x0 0x0 0x80000000 0x0 0x0 0x2000000
patch tile(0,0)+0x1d004 argument=0 offset=0x0
block_write tile(0,0)+0x1d020
    0x400 0x0 0x0 0x0 0x80000000 0x0 0x0 0x2000000
patch tile(0,0)+0x1d024 argument=1 offset=0x1000
write tile(0,0)+0x1d204 value=0x80000001
write tile(0,0)+0x1d214 value=0x0
sync tile(0,0) direction=s2mm channel=0 columns=1 rows=1
";

impl Sample {
    pub(crate) fn npu1() -> Sample {
        let mut sample = Sample {
            header: Header { uuid: Uuid([7; 16]), ..Header::default() },
            kernels: Vec::new(),
            partition: AiePartition {
                operations_per_cycle: 2048,
                column_width: 1,
                start_columns: vec![1, 2, 3, 4],
                ..AiePartition::default()
            },
            layout: IpLayout::default(),
            memories: MemTopology { memories: vec![memory("HOST"), memory("SRAM")] },
            connections: Connectivity::default(),
            group_memories: MemTopology { memories: vec![memory("HOST"), memory("SRAM")] },
            group_connections: Connectivity::default(),
            streams: vec![STREAM.to_owned()],
            kernel: None,
            device: None,
        };
        sample.add(Kernel::new("PASS", 0x901), image(CDO_NPU1));
        sample
    }

    pub(crate) fn npu4() -> Sample {
        let mut sample = Sample { device: Device::by_name("npu4"), ..Sample::npu1() };
        sample.partition.start_columns = (0..8).collect();
        sample.partition.pdis[0].image = Cow::Owned(image(CDO_NPU4));
        sample.streams = vec![STREAM.replace("generation=3", "generation=4")];
        sample
    }

    /// Two kernels, each with an image of its own.
    pub(crate) fn two() -> Sample {
        let mut sample = Sample::npu1();
        sample.add(Kernel::new("OTHER", 0x902), image(&format!("{CDO_NPU1}\nwrite tile(0,1)+0xc0020 value=1\n")));
        sample
    }

    /// Adds a kernel with its image, unit and connections.
    pub(crate) fn add(&mut self, kernel: Kernel, image: Vec<u8>) {
        let index = u8::try_from(self.partition.pdis.len()).unwrap();
        let group = CdoGroup {
            name: Cow::Borrowed("DPU"),
            kind: CdoType::PRIMARY,
            pdi_id: u64::from(index) + 1,
            kernel_ids: vec![kernel.id],
            pre_cdo_groups: vec![0xc1],
        };
        let uuid = Uuid([0x10 + index; 16]);
        self.partition.pdis.push(Pdi { uuid, image: Cow::Owned(image), groups: vec![group] });
        self.add_kernel(kernel);
    }

    /// Adds a kernel for an image that is there.
    pub(crate) fn add_kernel(&mut self, kernel: Kernel) {
        let unit = i32::try_from(self.layout.ips.len()).unwrap();
        self.connect(&kernel, unit);
        let name = Name::new(&format!("{}:ONE", kernel.name)).unwrap();
        let (id, functional) = (u32::try_from(kernel.id).unwrap(), u32::try_from(kernel.functional).unwrap());
        self.layout.ips.push(Ip::dpu(name, id, functional));
        self.kernels.push(kernel);
    }

    fn connect(&mut self, kernel: &Kernel, ip: i32) {
        for (argument, (name, is_buffer, ..)) in (0..).zip(&kernel.arguments) {
            let connection = Connection { argument, ip, memory: i32::from(name == "instr") };
            if *is_buffer {
                self.connections.connections.push(connection);
                self.group_connections.connections.push(connection);
            }
        }
    }

    /// Takes back all connections and makes those of the kernels as they are.
    pub(crate) fn reconnect(&mut self) {
        self.connections.connections.clear();
        self.group_connections.connections.clear();
        for (index, kernel) in (0..).zip(self.kernels.clone()) {
            self.connect(&kernel, index);
        }
    }

    pub(crate) fn metadata(&self) -> String {
        let kernels: String = self.kernels.iter().map(Kernel::xml).collect();
        format!("<project><platform><device><core>{kernels}</core></device></platform></project>")
    }

    pub(crate) fn container(&self) -> Axlf<'static> {
        let sections = [
            (Kind::MEM_TOPOLOGY, self.memories.to_bytes().unwrap()),
            (Kind::AIE_PARTITION, self.partition.to_bytes().unwrap()),
            (Kind::EMBEDDED_METADATA, self.metadata().into_bytes()),
            (Kind::IP_LAYOUT, self.layout.to_bytes().unwrap()),
            (Kind::CONNECTIVITY, self.connections.to_bytes().unwrap()),
            (Kind::GROUP_CONNECTIVITY, self.group_connections.to_bytes().unwrap()),
            (Kind::GROUP_TOPOLOGY, self.group_memories.to_bytes().unwrap()),
        ];
        let section = |(kind, bytes)| Section { kind, name: Name::default(), bytes: Cow::Owned(bytes) };
        Axlf::new(self.header, sections.into_iter().map(section).collect())
    }

    pub(crate) fn check(&self) -> Findings {
        self.check_bytes(&self.container().to_bytes().unwrap())
    }

    /// Checks other bytes in the place of the package's.
    pub(crate) fn check_bytes(&self, bytes: &[u8]) -> Findings {
        let streams: Vec<Vec<u8>> = self.streams.iter().map(|text| txn::assemble(text).unwrap()).collect();
        let launch = |bytes| Launch { name: "insts.bin", bytes, kernel: self.kernel };
        let launches: Vec<Launch<'_>> = streams.iter().map(|stream| launch(stream.as_slice())).collect();
        verify::package(bytes, &launches, self.device)
    }
}

fn memory(tag: &str) -> Memory {
    Memory {
        kind: MemType::DRAM,
        used: 1,
        size_kib: 0x10000,
        base_address: 0x400_0000,
        tag: Name::new(tag).unwrap(),
        ..Memory::default()
    }
}

/// A PDI of a CDO in text form.
pub(crate) fn image(text: &str) -> Vec<u8> {
    let cdo = cdo::assemble(text).unwrap();
    pdi::build(&[&cdo], &pdi::Options::default()).unwrap()
}
