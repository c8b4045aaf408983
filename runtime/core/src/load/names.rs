//! What each weight is called in a file.

use super::{
    config::Config,
    graph::{LayerWeight, WeightSlot},
    tensors::Tensors,
};

/// A file format's way to name weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// `blk.0.attn_q.weight`.
    Gguf,
    /// `model.layers.0.self_attn.q_proj.weight`.
    HuggingFace {
        /// Before `layers`: `model.`, or where a multimodal checkpoint keeps its text model.
        body: &'static str,
        /// Name of the output matrix.
        head: &'static str,
        /// Gemma has a norm on both sides of each branch, and names the inner ones anew.
        norms_around: bool,
    },
}

/// Where checkpoints keep the text model, and its head: alone, multimodal as transformers 5 writes it,
/// multimodal as older versions did, and bare.
const PLACES: [(&str, &str); 4] = [
    ("model.", "lm_head.weight"),
    ("model.language_model.", "lm_head.weight"),
    ("language_model.model.", "language_model.lm_head.weight"),
    ("", "lm_head.weight"),
];

impl Naming {
    /// The naming of a Hugging Face checkpoint, told by where its embedding table is.
    pub fn of_checkpoint(config: &Config, tensors: &Tensors) -> Naming {
        let holds = |&(body, _): &(&str, &str)| tensors.get(&format!("{body}embed_tokens.weight")).is_some();
        // With no table anywhere the first place gives the error the usual name.
        let (body, head) = PLACES.into_iter().find(holds).unwrap_or(PLACES[0]);
        Naming::HuggingFace { body, head, norms_around: config.post_norms }
    }

    /// The name of a weight.
    pub fn name(&self, slot: WeightSlot) -> String {
        match *self {
            Naming::Gguf => match slot {
                WeightSlot::Embedding => "token_embd.weight".to_owned(),
                WeightSlot::FinalNorm => "output_norm.weight".to_owned(),
                WeightSlot::Head => "output.weight".to_owned(),
                WeightSlot::Layer(layer, weight) => format!("blk.{layer}.{}", gguf_name(weight)),
            },
            Naming::HuggingFace { body, head, norms_around } => match slot {
                WeightSlot::Embedding => format!("{body}embed_tokens.weight"),
                WeightSlot::FinalNorm => format!("{body}norm.weight"),
                WeightSlot::Head => head.to_owned(),
                WeightSlot::Layer(layer, weight) => {
                    format!("{body}layers.{layer}.{}", hugging_face_name(weight, norms_around))
                }
            },
        }
    }
}

const fn gguf_name(weight: LayerWeight) -> &'static str {
    match weight {
        LayerWeight::AttentionNorm => "attn_norm.weight",
        LayerWeight::Q => "attn_q.weight",
        LayerWeight::K => "attn_k.weight",
        LayerWeight::V => "attn_v.weight",
        LayerWeight::QBias => "attn_q.bias",
        LayerWeight::KBias => "attn_k.bias",
        LayerWeight::VBias => "attn_v.bias",
        LayerWeight::QNorm => "attn_q_norm.weight",
        LayerWeight::KNorm => "attn_k_norm.weight",
        LayerWeight::Output => "attn_output.weight",
        LayerWeight::OutputBias => "attn_output.bias",
        LayerWeight::PostAttentionNorm => "post_attention_norm.weight",
        LayerWeight::FfnNorm => "ffn_norm.weight",
        LayerWeight::Gate => "ffn_gate.weight",
        LayerWeight::Up => "ffn_up.weight",
        LayerWeight::Down => "ffn_down.weight",
        LayerWeight::PostFfnNorm => "post_ffw_norm.weight",
    }
}

const fn hugging_face_name(weight: LayerWeight, norms_around: bool) -> &'static str {
    match weight {
        LayerWeight::AttentionNorm => "input_layernorm.weight",
        LayerWeight::Q => "self_attn.q_proj.weight",
        LayerWeight::K => "self_attn.k_proj.weight",
        LayerWeight::V => "self_attn.v_proj.weight",
        LayerWeight::QBias => "self_attn.q_proj.bias",
        LayerWeight::KBias => "self_attn.k_proj.bias",
        LayerWeight::VBias => "self_attn.v_proj.bias",
        LayerWeight::QNorm => "self_attn.q_norm.weight",
        LayerWeight::KNorm => "self_attn.k_norm.weight",
        LayerWeight::Output => "self_attn.o_proj.weight",
        LayerWeight::OutputBias => "self_attn.o_proj.bias",
        LayerWeight::PostAttentionNorm => "post_attention_layernorm.weight",
        LayerWeight::FfnNorm if norms_around => "pre_feedforward_layernorm.weight",
        // The norm after the attention block is the one before the network where there is only one.
        LayerWeight::FfnNorm => "post_attention_layernorm.weight",
        LayerWeight::Gate => "mlp.gate_proj.weight",
        LayerWeight::Up => "mlp.up_proj.weight",
        LayerWeight::Down => "mlp.down_proj.weight",
        LayerWeight::PostFfnNorm => "post_feedforward_layernorm.weight",
    }
}
