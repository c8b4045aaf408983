//! What a driver's compiler says of a pipeline (`VK_KHR_pipeline_executable_properties`).

use ash::vk;

use super::{
    device::{CallError, CallResult, named},
    facts::text,
    pipeline::Pipeline,
};

/// Asks for a pipeline that can be read here. Drivers keep neither otherwise.
pub(super) const CAPTURE: vk::PipelineCreateFlags = vk::PipelineCreateFlags::from_raw(
    vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR.as_raw()
        | vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR.as_raw(),
);

/// A compiled pipeline as its driver describes it; the names are the driver's.
#[derive(Debug)]
pub(crate) struct Description {
    pub(crate) subgroup_size: u32,
    pub(crate) statistics: Vec<(String, f64)>,
    /// Its stages as text, the machine code last.
    pub(crate) texts: Vec<(String, String)>,
}

impl Pipeline {
    /// What the driver says. Fails where the device was not opened for it.
    pub(crate) fn describe(&self) -> CallResult<Description> {
        let absent = |call| CallError { call, result: vk::Result::ERROR_EXTENSION_NOT_PRESENT };
        let calls = self.device.statistics.as_ref().ok_or(absent("vkGetPipelineExecutablePropertiesKHR"))?;
        let pipeline = vk::PipelineInfoKHR::default().pipeline(self.raw);
        // SAFETY: the pipeline is alive, and the feature is on where `calls` is there.
        let properties = named("vkGetPipelineExecutablePropertiesKHR", unsafe {
            calls.get_pipeline_executable_properties(&pipeline)
        })?;
        // A compute pipeline is one executable.
        let first = properties.first().ok_or(absent("vkGetPipelineExecutablePropertiesKHR"))?;
        let executable = vk::PipelineExecutableInfoKHR::default().pipeline(self.raw).executable_index(0);
        // SAFETY: executable 0 was listed, and the pipeline was made with `CAPTURE`.
        let statistics = named("vkGetPipelineExecutableStatisticsKHR", unsafe {
            calls.get_pipeline_executable_statistics(&executable)
        })?;
        let statistics = statistics.iter().map(|statistic| (text(&statistic.name), value(statistic))).collect();
        Ok(Description { subgroup_size: first.subgroup_size, statistics, texts: self.texts(calls, &executable)? })
    }

    /// The wrapper of `ash` asks for sizes and names alone, so the call is made here: for the sizes, then for
    /// the bytes.
    fn texts(
        &self,
        calls: &ash::khr::pipeline_executable_properties::Device,
        executable: &vk::PipelineExecutableInfoKHR<'_>,
    ) -> CallResult<Vec<(String, String)>> {
        const CALL: &str = "vkGetPipelineExecutableInternalRepresentationsKHR";
        // SAFETY: the executable was listed, and the pipeline was made with `CAPTURE`.
        let mut list = named(CALL, unsafe { calls.get_pipeline_executable_internal_representations(executable) })?;
        let mut bytes: Vec<Vec<u8>> = list.iter().map(|one| vec![0; one.data_size]).collect();
        for (one, bytes) in list.iter_mut().zip(&mut bytes) {
            one.p_data = bytes.as_mut_ptr().cast();
        }
        let mut count = u32::try_from(list.len()).unwrap_or(u32::MAX);
        let call = calls.fp().get_pipeline_executable_internal_representations_khr;
        // SAFETY: as above; `list` has `count` entries, each of which points to as many bytes as it says.
        named(CALL, unsafe { call(calls.device(), executable, &mut count, list.as_mut_ptr()) }.result())?;
        let texts = list.iter().zip(&bytes).filter(|(one, _)| one.is_text == vk::TRUE);
        Ok(texts
            .map(|(one, bytes)| {
                let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
                (text(&one.name), String::from_utf8_lossy(&bytes[..end]).into_owned())
            })
            .collect())
    }
}

fn value(statistic: &vk::PipelineExecutableStatisticKHR<'_>) -> f64 {
    type Format = vk::PipelineExecutableStatisticFormatKHR;
    // SAFETY: the format says which member of the union the driver wrote; each member is plain data.
    unsafe {
        match statistic.format {
            Format::BOOL32 => f64::from(statistic.value.b32),
            Format::INT64 => statistic.value.i64 as f64,
            Format::FLOAT64 => statistic.value.f64,
            _ => statistic.value.u64 as f64,
        }
    }
}
