//! IP_LAYOUT: the compute units. For an NPU one entry per kernel instance, of type PS kernel, whose kernel id
//! leads to the PDI that holds it. Drawn in `docs/src/formats/xclbin.md`
//! (`Xilinx/XRT:src/runtime_src/core/include/xrt/detail/xclbin.h`, `struct ip_layout`).

use super::{
    Name,
    json::{At, Tree},
    table,
};
use crate::{
    bytes::{Reader, Writer},
    error::Result,
};

const UNIT_BYTES: usize = 80;

/// What a compute unit is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct IpType(pub u32);

impl IpType {
    /// A kernel in programmable logic.
    pub const KERNEL: IpType = IpType(1);
    /// A kernel that a processor or an NPU runs.
    pub const PS_KERNEL: IpType = IpType(7);

    const NAMES: [&str; 8] = [
        "IP_MB",
        "IP_KERNEL",
        "IP_DNASC",
        "IP_DDR4_CONTROLLER",
        "IP_MEM_DDR4",
        "IP_MEM_HBM",
        "IP_MEM_HBM_ECC",
        "IP_PS_KERNEL",
    ];

    /// The name in `xclbin.h`, or `UNKNOWN (n)`.
    pub fn name(self) -> String {
        super::name_of(&Self::NAMES, self.0)
    }

    /// The type of that name.
    pub fn from_name(name: &str) -> Option<IpType> {
        Self::NAMES.iter().zip(0..).find_map(|(known, number)| (*known == name).then_some(IpType(number)))
    }

    fn is_memory(self) -> bool {
        (4..=6).contains(&self.0)
    }
}

const CONTROLS: [&str; 6] =
    ["AP_CTRL_HS", "AP_CTRL_CHAIN", "AP_CTRL_NONE", "AP_CTRL_ME", "ACCEL_ADAPTER", "FAST_ADAPTER"];
const SUBTYPES: [&str; 2] = ["PS", "DPU"];
const FUNCTIONALS: [&str; 2] = ["DPU", "PrePost"];

/// One compute unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// What it is.
    pub kind: IpType,
    /// Bits whose meaning depends on the type.
    pub properties: u32,
    /// All ones where it has none, as NPU kernels.
    pub base_address: u64,
    /// `KERNEL:INSTANCE`.
    pub name: Name<64>,
}

impl Ip {
    /// No base address.
    pub const NO_ADDRESS: u64 = u64::MAX;
    /// The subtype of kernels on an NPU.
    pub const SUBTYPE_DPU: u32 = 1;

    /// A kernel on an NPU. Of the id, the 12 bits that the field holds are kept.
    pub fn dpu(name: Name<64>, kernel_id: u32, functional: u32) -> Ip {
        let properties = Ip::SUBTYPE_DPU | (functional & 3) << 4 | (kernel_id & 0xfff) << 16;
        Ip { kind: IpType::PS_KERNEL, properties, base_address: Ip::NO_ADDRESS, name }
    }

    /// Of a PS kernel: 0 PS, 1 DPU.
    pub fn subtype(&self) -> u32 {
        self.properties & 3
    }

    /// Of a PS kernel: 0 DPU, 1 pre- and postprocessing.
    pub fn functional(&self) -> u32 {
        self.properties >> 4 & 3
    }

    /// The kernel id, where this is a kernel on an NPU.
    pub fn kernel_id(&self) -> Option<u32> {
        let is_dpu = self.kind == IpType::PS_KERNEL && self.subtype() == Ip::SUBTYPE_DPU;
        is_dpu.then_some(self.properties >> 16 & 0xfff)
    }
}

/// The compute units, in order: connections name them by index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpLayout {
    /// All of them.
    pub ips: Vec<Ip>,
}

impl IpLayout {
    /// Reads a section. An empty one has no unit.
    ///
    /// # Errors
    /// A size that contradicts the count.
    pub fn parse(bytes: &[u8]) -> Result<IpLayout> {
        if bytes.is_empty() {
            return Ok(IpLayout::default());
        }
        let (count, mut reader) = table::open(bytes, "IP_LAYOUT", 8, UNIT_BYTES)?;
        let ips = (0..count).map(|_| Ip::parse(&mut reader)).collect::<Result<_>>()?;
        Ok(IpLayout { ips })
    }

    /// The section's bytes; none where there is no unit, as `xclbinutil` leaves such a section out.
    ///
    /// # Errors
    /// More units than the count holds.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut out = table::start(self.ips.len(), 8)?;
        for ip in &self.ips {
            ip.write(&mut out);
        }
        Ok(out.bytes)
    }

    /// Reads JSON with the member `ip_layout`.
    ///
    /// # Errors
    /// A member that is missing, makes no sense or is too wide for its field; a count that is not that of the list.
    pub fn from_json(json: &Tree) -> Result<IpLayout> {
        let root = At::root(json);
        let ips = table::items(&root.get("ip_layout")?, "m_ip_data", Ip::from_json)?;
        Ok(IpLayout { ips })
    }

    /// The same JSON back, without the outermost member.
    pub fn to_json(&self) -> Tree {
        table::to_json("m_ip_data", self.ips.iter().copied().map(Ip::to_json))
    }
}

impl Ip {
    fn parse(reader: &mut Reader<'_>) -> Result<Ip> {
        Ok(Ip {
            kind: IpType(reader.u32("m_type")?),
            properties: reader.u32("properties")?,
            base_address: reader.u64("m_base_address")?,
            name: Name(reader.array("m_name")?),
        })
    }

    fn write(&self, out: &mut Writer) {
        out.u32(self.kind.0);
        out.u32(self.properties);
        out.u64(self.base_address);
        out.put(&self.name.0);
    }

    fn from_json(json: At<'_>) -> Result<Ip> {
        let kind = json.get("m_type")?;
        let known = IpType::from_name(kind.text()?);
        let kind = known
            .ok_or_else(|| kind.error(format!("{:?}", kind.tree.text), "IP_PS_KERNEL, IP_KERNEL, ... is expected"))?;
        let properties = match kind {
            IpType::PS_KERNEL => ps_properties(&json)?,
            kind if kind.is_memory() => {
                let index = json.get("m_index")?.decimal::<u16>()?;
                let channel = json.find("m_pc_index").map_or(Ok(0), |channel| channel.decimal::<u8>())?;
                u32::from(channel) << 16 | u32::from(index)
            }
            _ => kernel_properties(&json)?,
        };
        let address = json.get("m_base_address")?;
        let base_address = if address.text()? == "not_used" { Ip::NO_ADDRESS } else { address.number()? };
        Ok(Ip { kind, properties, base_address, name: super::name_from(&json, "m_name")? })
    }

    fn to_json(self) -> Tree {
        let json = Tree::default().with("m_type", self.kind.name());
        let raw = |json: Tree| json.with("properties", format!("{:#x}", self.properties));
        let json = match self.kind {
            kind if kind.is_memory() => json
                .with("m_index", (self.properties & 0xffff).to_string())
                .with("m_pc_index", (self.properties >> 16 & 0xff).to_string()),
            IpType::KERNEL => json
                .with("m_int_enable", (self.properties & 1).to_string())
                .with("m_interrupt_id", (self.properties >> 1 & 0x7f).to_string())
                .with("m_ip_control", super::name_of(&CONTROLS, self.properties >> 8 & 0xff)),
            _ => match self.kernel_id() {
                Some(id) => json
                    .with("m_subtype", super::name_of(&SUBTYPES, self.subtype()))
                    .with("m_functional", super::name_of(&FUNCTIONALS, self.functional()))
                    .with("m_kernel_id", format!("{id:#x}")),
                None => raw(json),
            },
        };
        let address = match self.base_address {
            Ip::NO_ADDRESS => "not_used".to_owned(),
            address => format!("{address:#x}"),
        };
        json.with("m_base_address", address).with("m_name", self.name.text().as_ref())
    }
}

/// Of a PS kernel: `properties`, which kernels without subtype have, and over it the parts by name.
/// `xclbinutil` 2.25 gives `properties` and does not take it back: there the kernel id of such a kernel is lost.
fn ps_properties(json: &At<'_>) -> Result<u32> {
    let mut properties = whole(json)?;
    if present(json, "m_subtype").is_some() {
        properties = properties & !3 | choice(json, "m_subtype", &SUBTYPES, 3)?;
    }
    if present(json, "m_functional").is_some() {
        properties = properties & !0x30 | choice(json, "m_functional", &FUNCTIONALS, 3)? << 4;
    }
    if let Some(id) = present(json, "m_kernel_id") {
        properties = properties & !0xfff_0000 | small(id.number_to(0xfff)?) << 16;
    }
    Ok(properties)
}

fn whole(json: &At<'_>) -> Result<u32> {
    present(json, "properties").map_or(Ok(0), |whole| whole.number_to(u32::MAX.into()).map(small))
}

/// Of everything else: `properties`, and over it the parts by name.
fn kernel_properties(json: &At<'_>) -> Result<u32> {
    let mut properties = whole(json)?;
    if let Some(enable) = json.find("m_int_enable") {
        let bit = match enable.text()?.trim() {
            "0" | "false" => 0,
            "1" | "true" => 1,
            other => return Err(enable.error(format!("{other:?}"), "0, 1, true or false is expected")),
        };
        properties = properties & !1 | bit;
    }
    if let Some(interrupt) = present(json, "m_interrupt_id") {
        properties = properties & !0xfe | small(interrupt.number_to(0x7f)?) << 1;
    }
    if json.find("m_ip_control").is_some() {
        properties = properties & !0xff00 | choice(json, "m_ip_control", &CONTROLS, 0xff)? << 8;
    }
    Ok(properties)
}

/// A member that is there and not empty.
fn present<'a>(json: &'a At<'a>, key: &'a str) -> Option<At<'a>> {
    json.find(key).filter(|at| !(at.tree.text.is_empty() && at.tree.children.is_empty()))
}

/// A name of a list, by its index, or a number; zero where there is none.
fn choice(json: &At<'_>, key: &str, names: &[&str], max: u64) -> Result<u32> {
    let Some(at) = present(json, key) else {
        return Ok(0);
    };
    let text = at.text()?;
    if let Some((_, number)) = names.iter().zip(0..).find(|(name, _)| **name == text) {
        return Ok(number);
    }
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return at.number_to(max).map(small);
    }
    Err(at.error(format!("{text:?}"), format!("one of {} is expected", names.join(", "))))
}

/// A number that was held against a bound of 32 bits.
fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
