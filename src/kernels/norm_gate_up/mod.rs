//! Norm, gate and up projections, SiLU.

pub(super) mod cpu;
pub(super) mod cuda;

use crate::kernels::linear::*;
use crate::kernels::params::*;
use crate::kernels::{Check, Checker, KernelParams, Node};
use crate::trace::schema::{Op, Place};

impl NormGateUpParams {
    /// The node.
    pub fn node(&self, layer: i32) -> Node {
        let NormGateUpParams { gate, up, hidden, ffn, .. } = self;
        assert_same_input("norm_gate_up", &[gate, up]);
        assert_eq!(gate.rows, up.rows, "as many gates as values");
        assert_eq!((*hidden, *ffn), (gate.cols, gate.rows), "the sizes are those of the matrices");
        let (norms, biases) = (norm_count(self.gamma), bias_count(self.bias));
        let vectors = norms * f64::from(*hidden) + biases * 2.0 * f64::from(*ffn);
        let constant_bytes = weight_bytes(gate) + weight_bytes(up) + F32_BYTES * vectors;
        let row_bytes = F32_BYTES * f64::from(hidden + ffn);
        // The norm is four operations a value, SiLU and the product five (the exponential counted as one).
        let row_flops = product_flops(gate)
            + product_flops(up)
            + norms * 4.0 * f64::from(*hidden)
            + (5.0 + 2.0 * biases) * f64::from(*ffn);
        Node {
            params: KernelParams::NormGateUp(*self),
            place: Place { layer, op: Op::MlpUp },
            cost: cost_per_token(constant_bytes, row_bytes, row_flops),
        }
    }
}

/// What the kernels of every device trust in.
pub(super) fn check(checker: &Checker<'_>, p: &NormGateUpParams) -> Check {
    checker.array("shape", p.shape, size_of::<StepShape>())?;
    checker.array("x", p.x, checker.floats(p.hidden, 1))?;
    checker.optional("gamma", p.gamma, p.hidden as usize * 4)?;
    checker.optional("bias", p.bias, 2 * p.ffn as usize * 4)?;
    checker.array("out", p.out, checker.floats(p.ffn, 1))?;
    checker.rows_of_input(p.rows, &[p.gate, p.up])?;
    checker.weight("gate", &p.gate, p.ffn, p.hidden)?;
    checker.weight("up", &p.up, p.ffn, p.hidden)
}

/// The input of the reference.
#[derive(Clone, Copy, Debug)]
pub struct Reference<'a> {
    /// (tokens, hidden)
    pub x: &'a [f32],
    /// (hidden); none: no norm comes before
    pub gamma: Option<&'a [f32]>,
    /// (2, ffn)
    pub bias: Option<&'a [f32]>,
    /// Of the norm.
    pub eps: f32,
    /// The projection that goes through SiLU.
    pub gate: Matrix<'a>,
    /// The other.
    pub up: Matrix<'a>,
    /// `ACTIVATIONS_*`, of gate and up
    pub activations: [u32; 2],
}

/// Gate and up projections, and the result: (tokens, ffn) of each.
pub fn reference(input: &Reference<'_>) -> [Vec<f64>; 3] {
    let mut out = [const { Vec::new() }; 3];
    for x in input.x.chunks_exact(input.gate.cols) {
        let normed = normed(x, input.gamma, input.eps);
        let rows = input.activations.map(|activations| round_activations(&normed, activations));
        let (gate_bias, up_bias) = input.bias.map(|bias| bias.split_at(input.gate.rows)).unzip();
        let gate = add_bias(product(&input.gate, &rows[0]), gate_bias);
        let up = add_bias(product(&input.up, &rows[1]), up_bias);
        out[2].extend(gate.iter().zip(&up).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up));
        out[0].extend(gate);
        out[1].extend(up);
    }
    out
}
