//! The machine: a device that fails is left out and named, and measurements end up in the topology.

use std::sync::{Arc, atomic::AtomicBool};

use biga::{
    hal::{Backend, Device, DeviceId, DeviceInfo, DeviceKind, Error, Result, Unavailable},
    probe::{Machine, Measurements, measure},
};
use biga_cpu::{CpuBackend, CpuOptions};
use biga_tests::disguise::{Disguise, Disguises};
use biga_vulkan::VulkanBackend;

/// A driver that lists a device and then fails to open it.
#[derive(Debug)]
struct FailsToOpen;

const GPU: DeviceId = DeviceId { backend: "vulkan", index: 0 };

impl Backend for FailsToOpen {
    fn name(&self) -> &'static str {
        "vulkan"
    }

    fn probe(&self) -> std::result::Result<Vec<DeviceInfo>, Unavailable> {
        let cpu = CpuBackend::default().probe()?.remove(0);
        Ok(vec![DeviceInfo { id: GPU, kind: DeviceKind::IntegratedGpu, name: "a gpu".into(), ..cpu }])
    }

    fn open(&self, id: DeviceId) -> Result<Arc<dyn Device>> {
        Err(Error::Driver { device: id, call: "vkCreateDevice", cause: "initialisation failed".into() })
    }
}

#[test]
fn a_driver_that_fails_at_start_is_left_out_with_its_cause() {
    let mut machine = Machine::new();
    machine.register(Arc::new(CpuBackend::default()));
    machine.register(Arc::new(FailsToOpen));
    let topology = machine.probe();
    assert_eq!(topology.devices[0].id, GPU, "a gpu stands before the cpu");
    let open = machine.open(&topology.select(&[]).topology).unwrap();
    assert!(open.get(GPU).is_none() && open.topology().device(GPU).is_none());
    assert_eq!(open.iter().len(), 1);
    let (_, unavailable) = open.topology().unavailable.iter().find(|(backend, _)| *backend == "vulkan").unwrap();
    assert!(unavailable.cause.contains("a gpu (vulkan:0) does not open"), "{unavailable}");
    assert!(unavailable.cause.contains("initialisation failed"), "{unavailable}");
}

#[test]
fn a_machine_on_which_nothing_opens_is_an_error() {
    let mut machine = Machine::new();
    assert!(machine.open(&machine.probe()).is_err());
    machine.register(Arc::new(FailsToOpen));
    let error = machine.open(&machine.probe()).unwrap_err();
    assert!(error.to_string().contains("vkCreateDevice"), "{error}");
}

#[test]
fn measured_rates_and_links_are_applied_to_the_same_devices() {
    let named = std::env::var("BIGA_TEST_VULKAN").ok();
    if named.is_none() {
        eprintln!("no Vulkan device is named by BIGA_TEST_VULKAN: links are not measured, only the cpu's rates");
    }
    let mut machine = Machine::new();
    machine.register(Arc::new(CpuBackend::new(CpuOptions { threads: Some(2), ..CpuOptions::default() })));
    machine.register(Arc::new(VulkanBackend::new()));
    let topology = machine.probe().select(&[named.clone().unwrap_or_else(|| "cpu".to_owned())]).topology;
    let open = machine.open(&topology).unwrap();
    let mut fractions = Vec::new();
    assert_eq!(measure(&open, &AtomicBool::new(true), &mut |progress| panic!("{progress:?}")), None);
    let going_on = AtomicBool::new(false);
    let measured = measure(&open, &going_on, &mut |progress| fractions.push(progress.fraction)).unwrap();
    assert_eq!(measured.failures, Vec::<String>::new());
    assert_eq!(measured.rates.len(), open.iter().len());
    assert!(fractions.is_sorted() && fractions.last() == Some(&1.0), "{fractions:?}");

    let mut stored = Measurements::default();
    stored.update(&topology, &measured);
    machine.set_measurements(stored);
    let again = machine.probe().select(&[named.clone().unwrap_or_else(|| "cpu".to_owned())]).topology;
    assert!(again.devices.iter().all(|info| info.rates.measured));
    assert_eq!(again.links.len(), if named.is_some() { 2 } else { 0 });
    for link in &again.links {
        assert!(link.measured && link.latency_s > 0.0 && link.bytes_per_s > 0.0, "{link:?}");
    }
}

/// Whether two devices are found to share memory.
fn check_shared(devices: [(DeviceKind, bool); 2], shared: bool) {
    let mut machine = Machine::new();
    let disguise = |(kind, imports)| Disguise { kind, imports, ..Disguise::default() };
    machine.register(Arc::new(Disguises(devices.map(disguise).to_vec())));
    let open = machine.open(&machine.probe()).unwrap();
    let measured = measure(&open, &AtomicBool::new(false), &mut |_| {}).unwrap();
    assert_eq!((measured.failures.as_slice(), measured.links.len()), (&[][..], 2), "{devices:?}");
    assert!(measured.links.iter().all(|link| link.shared == shared), "{devices:?}: {:?}", measured.links);
}

#[test]
fn memory_is_shared_if_each_device_reaches_what_the_other_owns() {
    use DeviceKind::{Cpu, DiscreteGpu, IntegratedGpu};
    check_shared([(IntegratedGpu, true), (DiscreteGpu, true)], true);
    check_shared([(IntegratedGpu, false), (DiscreteGpu, true)], false);
    check_shared([(IntegratedGpu, true), (DiscreteGpu, false)], false);
    // The CPU's own memory is never what is shared.
    check_shared([(IntegratedGpu, false), (Cpu, true)], true);
    check_shared([(IntegratedGpu, true), (Cpu, false)], false);
}
