//! Which rows a kernel prepares for the linear layer that reads its result next: found in the list of nodes.

use super::params::NextRows;
use super::{DevicePtr, KernelParams, Node};

/// The rows that a linear layer reads: of which buffer, and how it wants them.
struct Reader {
    input: DevicePtr<f32>,
    rows: NextRows,
}

/// Fills in for every node what the next linear layer wants that reads its result. `nodes` are all that are replayed
/// for one step, in order; a device whose linear layers prepare their rows themselves does not look at it.
pub fn link(nodes: &mut [Node]) {
    for index in 0..nodes.len() {
        let (before, behind) = nodes.split_at_mut(index + 1);
        if let Some((result, next)) = result(&mut before[index].params)
            && let Some(reader) = behind.iter().filter_map(|node| reader(&node.params)).find(|r| r.input == result)
        {
            *next = reader.rows;
        }
    }
}

/// What a kernel computes that linear layers read, and where it is told of them.
fn result(params: &mut KernelParams) -> Option<(DevicePtr<f32>, &mut NextRows)> {
    match params {
        KernelParams::Embed(p) => Some((p.x, &mut p.next)),
        KernelParams::Attention(p) => Some((p.out, &mut p.next)),
        KernelParams::LinearResidual(p) => Some((p.x, &mut p.next)),
        KernelParams::NormGateUp(p) => Some((p.out, &mut p.next)),
        KernelParams::NormQkv(_) | KernelParams::NormLmHead(_) | KernelParams::Sample(_) => None,
    }
}

fn reader(params: &KernelParams) -> Option<Reader> {
    let (input, rows, gamma, weight) = match params {
        KernelParams::NormQkv(p) => (p.x, p.rows, p.gamma, &p.wq),
        KernelParams::LinearResidual(p) => (p.input, p.rows, DevicePtr::NULL, &p.weight),
        KernelParams::NormGateUp(p) => (p.x, p.rows, p.gamma, &p.gate),
        KernelParams::NormLmHead(p) => (p.x, p.rows, p.gamma, &p.weight),
        KernelParams::Embed(_) | KernelParams::Attention(_) | KernelParams::Sample(_) => return None,
    };
    Some(Reader { input, rows: NextRows { rows, gamma, activations: weight.activations, reserved: 0 } })
}
