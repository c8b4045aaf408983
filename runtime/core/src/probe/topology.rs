//! What the machine offers: devices, and what it costs to cross from one to another.

use biga_hal::{DeviceId, DeviceInfo, DeviceKind, Unavailable};

/// What crossing from one device to another costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// Producer.
    pub from: DeviceId,
    /// Consumer.
    pub to: DeviceId,
    /// Seconds from the producer's last write to the consumer's first op, for an empty value.
    pub latency_s: f64,
    /// Bytes per second where the value is copied; infinite where memory is shared.
    pub bytes_per_s: f64,
    /// True if both sides use the same memory, so that nothing is copied.
    pub shared: bool,
    /// False for assumptions.
    pub measured: bool,
}

/// The machine as the planner sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Topology {
    /// Devices that take part, in the order of preference among equals.
    pub devices: Vec<DeviceInfo>,
    /// Crossings; a missing pair is assumed by [`Topology::link`].
    pub links: Vec<Link>,
    /// Backends that offer no device, with the cause.
    pub unavailable: Vec<(&'static str, Unavailable)>,
}

impl Topology {
    /// The device with this id.
    pub fn device(&self, id: DeviceId) -> Option<&DeviceInfo> {
        self.devices.iter().find(|device| device.id == id)
    }

    /// The crossing from one device to another, measured or assumed: shared where one of the two is the
    /// CPU and the other's buffers are host-visible, else a copy through the host at 10 GB/s.
    pub fn link(&self, from: DeviceId, to: DeviceId) -> Link {
        if let Some(link) = self.links.iter().find(|link| link.from == from && link.to == to) {
            return *link;
        }
        let visible = |id| self.device(id).is_some_and(|device| device.host_visible);
        let cpu = |id| self.device(id).is_some_and(|device| device.kind == DeviceKind::Cpu);
        let shared = from == to || (cpu(from) && visible(to)) || (cpu(to) && visible(from));
        let submit_s = |id| self.device(id).map_or(0.0, |device| device.rates.submit_s);
        Link {
            from,
            to,
            latency_s: if from == to { 0.0 } else { submit_s(to) },
            bytes_per_s: if shared { f64::INFINITY } else { 10e9 },
            shared,
            measured: false,
        }
    }
}
