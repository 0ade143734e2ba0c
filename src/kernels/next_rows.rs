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
        KernelParams::NormResidual(p) => Some((p.x, &mut p.next)),
        KernelParams::NormGateUp(p) => Some((p.out, &mut p.next)),
        KernelParams::NormQkv(_) | KernelParams::QkNorm(_) | KernelParams::NormLmHead(_) | KernelParams::Sample(_) => {
            None
        }
    }
}

fn reader(params: &KernelParams) -> Option<Reader> {
    let (input, rows, gamma, weight) = match params {
        KernelParams::NormQkv(p) => (p.x, p.rows, p.gamma, &p.wq),
        KernelParams::LinearResidual(p) => (p.input, p.rows, DevicePtr::NULL, &p.weight),
        KernelParams::NormGateUp(p) => (p.x, p.rows, p.gamma, &p.gate),
        KernelParams::NormLmHead(p) => (p.x, p.rows, p.gamma, &p.weight),
        KernelParams::Embed(_)
        | KernelParams::QkNorm(_)
        | KernelParams::Attention(_)
        | KernelParams::NormResidual(_)
        | KernelParams::Sample(_) => return None,
    };
    Some(Reader { input, rows: NextRows { rows, gamma, activations: weight.activations, reserved: 0 } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::params::*;
    use crate::trace::schema::{Cost, Op, Place};

    const X: u64 = 64;
    const INNER: u64 = 128;

    fn node(params: KernelParams) -> Node {
        Node { params, place: Place { layer: 0, op: Op::Embed }, cost: Cost::default() }
    }

    fn weight(activations: u32) -> WeightRef {
        WeightRef { activations, ..WeightRef::default() }
    }

    /// What each node was told, as (rows, gamma, activations).
    fn linked(nodes: &[KernelParams]) -> Vec<Option<(u64, u64, u32)>> {
        let mut nodes: Vec<Node> = nodes.iter().copied().map(node).collect();
        link(&mut nodes);
        let next = |node: &mut Node| result(&mut node.params).map(|(_, next)| *next);
        nodes.iter_mut().map(|node| next(node).map(|n| (n.rows.addr(), n.gamma.addr(), n.activations))).collect()
    }

    #[test]
    fn rows_are_prepared_for_whoever_reads_the_result_next() {
        let x = X.into();
        let embed = KernelParams::Embed(EmbedParams { x, ..Default::default() });
        let qkv =
            NormQkvParams { x, rows: 1.into(), gamma: 2.into(), wq: weight(3), wk: weight(9), ..Default::default() };
        let attention = KernelParams::Attention(AttentionParams { out: INNER.into(), ..Default::default() });
        let out =
            LinearResidualParams { input: INNER.into(), x, rows: 4.into(), weight: weight(5), ..Default::default() };
        let head = NormLmHeadParams { x, rows: 6.into(), gamma: 7.into(), weight: weight(8), ..Default::default() };
        let list = [
            embed,
            KernelParams::NormQkv(qkv),
            attention,
            KernelParams::LinearResidual(out),
            KernelParams::NormLmHead(head),
            KernelParams::Sample(SampleParams::default()),
        ];
        let told = linked(&list);
        assert_eq!(told, [Some((1, 2, 3)), None, Some((4, 0, 5)), Some((6, 7, 8)), None, None]);
        assert_eq!(linked(&list[..4])[3], Some((0, 0, 0)), "nobody reads it");
    }
}
