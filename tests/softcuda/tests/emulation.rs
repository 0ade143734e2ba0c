//! The emulation against plain definitions: lanes, barriers, atomics, copies, matrices, conversions.

mod probe;

use probe::{addresses, in_all_modes, run};
use softcuda::emulate::{Library, Mode};

#[test]
fn the_kernels_of_a_library_are_listed_with_their_parameters() {
    let kernel = Library::probes().find("copy_to").expect("a kernel");
    assert_eq!(kernel.parameter_bytes, [8, 4, 4]);
    assert!(Library::probes().find("copy").is_none());
    assert!(Library::probes().all().len() > 30);
    // Each file has a kernel that is named like it, up to what tells its variants apart.
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../csrc")).expect("csrc") {
        let path = file.expect("a readable folder").path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("UTF-8");
        let is_there = Library::kernels().all().iter().any(|kernel| kernel.name.starts_with(stem));
        assert!(is_there || path.extension().is_none_or(|end| end != "cu"), "{}", path.display());
    }
    assert!(Library::kernels().all().iter().all(|kernel| kernel.parameter_bytes.len() <= 2), "params and launch info");
}

#[test]
fn a_block_adds_through_lanes_and_shared_memory() {
    let input: Vec<i32> = (0..4 * 256).map(|i| i * 7919 % 1000 - 500).collect();
    in_all_modes(|mode| {
        let mut sums = [0i32; 4];
        run("block_sum", 4, 256, mode, &addresses(&[input.as_ptr().cast(), sums.as_mut_ptr().cast()]));
        let expected: Vec<i32> = input.chunks(256).map(|part| part.iter().sum()).collect();
        assert_eq!(sums.as_slice(), expected, "{mode:?}");
    });
}

#[test]
fn blocks_and_threads_of_three_dimensions_run_once_each() {
    in_all_modes(|mode| {
        let mut out = vec![1u32; 2 * 3 * 4 * 5 * 6 * 7];
        let address = (out.as_mut_ptr() as u64).to_ne_bytes();
        probe::launch("numbering", [2, 3, 4], [5, 6, 7], 0, &[&address], mode).expect("it runs");
        assert!(out.iter().enumerate().all(|(i, &value)| value == 1 + 2 * i as u32), "{mode:?}");
    });
}

#[test]
fn lanes_get_what_shuffles_and_votes_say() {
    type Expected = fn(u32) -> u32;
    let expected: [(&str, Expected); 12] = [
        ("shfl 5", |_| 5),
        ("shfl 3 of 8", |lane| lane / 8 * 8 + 3),
        ("xor 9", |lane| lane ^ 9),
        ("down 3", |lane| if lane + 3 < 32 { lane + 3 } else { lane }),
        ("up 3", |lane| lane.checked_sub(3).unwrap_or(lane)),
        ("down 3 of 16", |lane| if lane % 16 + 3 < 16 { lane + 3 } else { lane }),
        ("ballot", |_| (0..32).step_by(3).map(|lane| 1 << lane).sum()),
        ("any", |_| 2),
        ("all", |_| 2),
        ("add", |_| 31 * 32 / 2),
        ("match", |lane| 15 << (lane / 4 * 4)),
        ("halves", |lane| {
            let once = |lane: u32| lane + (lane ^ 1);
            if lane >= 16 { once(lane - 16) } else { 2 * once(lane + 16) }
        }),
    ];
    in_all_modes(|mode| {
        let mut out = vec![u32::MAX; expected.len() * 32];
        run("lanes", 1, 32, mode, &addresses(&[out.as_mut_ptr().cast()]));
        for (row, (name, value)) in out.chunks(32).zip(&expected) {
            assert_eq!(row, (0..32).map(value).collect::<Vec<u32>>(), "{name}, {mode:?}");
        }
    });
}

#[test]
fn barriers_count_the_threads_that_are_there() {
    in_all_modes(|mode| {
        let mut out = [u32::MAX; 3];
        run("barriers", 1, 96, mode, &addresses(&[out.as_mut_ptr().cast()]));
        assert_eq!(out, [40, 2, 2], "{mode:?}");
    });
}

#[repr(C)]
#[derive(Default, Debug, PartialEq)]
struct Counters {
    sum: u64,
    largest: u64,
    count: u32,
    largest_small: u32,
    smallest: u32,
    bits: u32,
    arrived: u32,
    last: u32,
    real: f32,
    swapped: i32,
}

#[test]
fn atomics_add_up() {
    in_all_modes(|mode| {
        let mut counters = Counters { smallest: u32::MAX, ..Counters::default() };
        run("atomics", 3, 64, mode, &addresses(&[(&raw mut counters).cast()]));
        let last = if mode == Mode::ALL[0] || mode == Mode::ALL[2] { 3 } else { 1 };
        let expected = Counters {
            sum: 192 << 33,
            largest: u64::MAX,
            count: 192,
            largest_small: 191,
            smallest: 7,
            bits: u32::MAX,
            arrived: 3,
            last,
            real: 96.0,
            swapped: -1,
        };
        assert_eq!(counters, expected, "{mode:?}");
    });
}

#[test]
fn asynchronous_copies_arrive_in_groups() {
    let input: Vec<u32> = (0..3 * 128 * 4).collect();
    in_all_modes(|mode| {
        let mut out = vec![0u32; input.len()];
        let params = addresses(&[input.as_ptr().cast(), out.as_mut_ptr().cast()]);
        probe::launch("reverse", [3, 1, 1], [64, 1, 1], 2 * 64 * 16, &probe::slices(&params), mode).expect("it runs");
        let reversed = |part: &[u32]| part.chunks(4).rev().flatten().copied().collect::<Vec<u32>>();
        let expected: Vec<u32> = input.chunks(128 * 4).flat_map(reversed).collect();
        assert_eq!(out, expected, "{mode:?}");
    });
}

#[test]
fn streams_are_read_and_the_clock_goes_on() {
    let input: Vec<u128> = (0..32).map(|i| i * 0x0123_4567_89ab_cdef_0fed_cba9_8765_4321).collect();
    let (mut out, mut times) = (vec![0u128; 32], [0u64; 2]);
    let params = addresses(&[input.as_ptr().cast(), out.as_mut_ptr().cast(), times.as_mut_ptr().cast()]);
    run("stream_and_clock", 1, 32, Mode::ALL[0], &params);
    assert_eq!(out, input);
    assert!(times[0] > 0 && times[1] >= times[0], "{times:?}");
}

#[test]
fn matrices_are_loaded_as_the_isa_says() {
    let input: Vec<u16> = (0..4 * 64).map(|i| i as u16 * 131).collect();
    for (name, transposed) in [("matrices_straight", false), ("matrices_transposed", true)] {
        in_all_modes(|mode| {
            let mut out = vec![[0u16; 2]; 32 * 4];
            // Rows have to begin at multiples of 16 bytes.
            let aligned: Vec<u128> = input.chunks(8).map(row_bits).collect();
            run(name, 1, 32, mode, &addresses(&[aligned.as_ptr().cast(), out.as_mut_ptr().cast()]));
            for (index, pair) in out.iter().enumerate() {
                let (lane, matrix) = (index / 4, index % 4);
                let element = |i: usize| {
                    let (row, column) = (lane / 4, lane % 4 * 2 + i);
                    let (row, column) = if transposed { (column, row) } else { (row, column) };
                    input[matrix * 64 + row * 8 + column]
                };
                assert_eq!(*pair, [element(0), element(1)], "{name}: matrix {matrix} in lane {lane}, {mode:?}");
            }
        });
    }
}

fn row_bits(values: &[u16]) -> u128 {
    values.iter().rev().fold(0, |bits, &value| bits << 16 | u128::from(value))
}

/// d (16, 8) + a (16, k) b (k, 8), `b` by columns; values small enough that every order of sums is exact.
fn plain_product(a: &[f64], b: &[f64], d: &[f64]) -> Vec<f64> {
    let k = a.len() / 16;
    let dot = |row: usize, column: usize| (0..k).map(|i| a[row * k + i] * b[column * k + i]).sum::<f64>();
    (0..16 * 8).map(|i| d[i] + dot(i / 8, i % 8)).collect()
}

fn small_numbers(count: usize, seed: usize) -> Vec<f64> {
    (0..count).map(|i| ((i * 37 + seed * 11) % 17) as f64 - 8.0).collect()
}

#[test]
fn products_of_floats_are_as_defined() {
    let (a, b, d) = (small_numbers(256, 1), small_numbers(128, 2), small_numbers(128, 3));
    type Bits = fn(f64) -> u16;
    let formats: [(&str, Bits); 2] = [
        ("product_bf16", |v| half::bf16::from_f64(v).to_bits()),
        ("product_f16", |v| half::f16::from_f64(v).to_bits()),
    ];
    for (name, bits) in formats {
        in_all_modes(|mode| {
            let (ra, rb) =
                (a.iter().map(|&v| bits(v)).collect::<Vec<_>>(), b.iter().map(|&v| bits(v)).collect::<Vec<_>>());
            let mut rd: Vec<f32> = d.iter().map(|&v| v as f32).collect();
            run(name, 1, 32, mode, &addresses(&[ra.as_ptr().cast(), rb.as_ptr().cast(), rd.as_mut_ptr().cast()]));
            let result: Vec<f64> = rd.iter().map(|&v| f64::from(v)).collect();
            assert_eq!(result, plain_product(&a, &b, &d), "{name}, {mode:?}");
        });
    }
}

#[test]
fn products_of_bytes_are_exact() {
    let bytes = |count: usize, seed: usize| (0..count).map(|i| (i * 73 + seed) as i8).collect::<Vec<i8>>();
    let (a, b) = (bytes(16 * 32, 5), bytes(8 * 32, 128));
    let d: Vec<i32> = (0..128).map(|i| i * 1_000_003 - 50_000_000).collect();
    assert!(a.contains(&-128) && b.contains(&-128) && a.contains(&127));
    in_all_modes(|mode| {
        let mut rd = d.clone();
        run("product_s8", 1, 32, mode, &addresses(&[a.as_ptr().cast(), b.as_ptr().cast(), rd.as_mut_ptr().cast()]));
        let wide = |values: &[i8]| values.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
        let expected = plain_product(&wide(&a), &wide(&b), &d.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>());
        assert_eq!(rd.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>(), expected, "{mode:?}");
    });
}

#[test]
fn loaded_matrices_fit_the_product() {
    let (a, b_columns) = (small_numbers(256, 4), small_numbers(128, 5));
    let bits = |values: Vec<f64>| -> Vec<u128> {
        let bits: Vec<u16> = values.iter().map(|&v| half::bf16::from_f64(v).to_bits()).collect();
        bits.chunks(8).map(row_bits).collect()
    };
    let b_rows: Vec<f64> = (0..128).map(|i| b_columns[i % 8 * 16 + i / 8]).collect();
    let (ra, rb) = (bits(a.clone()), bits(b_rows));
    in_all_modes(|mode| {
        let mut d = [f32::NAN; 128];
        run(
            "product_loaded",
            1,
            32,
            mode,
            &addresses(&[ra.as_ptr().cast(), rb.as_ptr().cast(), d.as_mut_ptr().cast()]),
        );
        assert_eq!(d.map(f64::from).to_vec(), plain_product(&a, &b_columns, &[0.0; 128]), "{mode:?}");
    });
}

#[test]
fn conversions_agree_with_another_implementation() {
    // Every pattern of the upper half of an f32, with lower halves that round in all ways.
    let input: Vec<f32> = (0..65536u32)
        .map(|i| f32::from_bits(i << 16 | [0, 0x1000, 0x8000, 0x8001, 0x7fff, 0x3000][i as usize % 6]))
        .collect();
    let (mut from_half, mut from_bf16) = (vec![0f32; 65536], vec![0f32; 65536]);
    let (mut to_half, mut to_bf16) = (vec![0u16; 65536], vec![0u16; 65536]);
    let params = addresses(&[
        input.as_ptr().cast(),
        from_half.as_mut_ptr().cast(),
        from_bf16.as_mut_ptr().cast(),
        to_half.as_mut_ptr().cast(),
        to_bf16.as_mut_ptr().cast(),
    ]);
    run("conversions", 64, 1024, Mode::ALL[0], &params);
    let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    for i in 0..65536 {
        let bits = i as u16;
        assert!(same(from_half[i], half::f16::from_bits(bits).to_f32()), "f16 {bits:04x}");
        assert!(same(from_bf16[i], half::bf16::from_bits(bits).to_f32()), "bf16 {bits:04x}");
        let v = input[i];
        let (h, b) = (half::f16::from_bits(to_half[i]), half::bf16::from_bits(to_bf16[i]));
        assert!(same(h.to_f32(), half::f16::from_f32(v).to_f32()), "{v:e} to f16: {h:e}");
        assert!(same(b.to_f32(), half::bf16::from_f32(v).to_f32()), "{v:e} to bf16: {b:e}");
    }
}

#[test]
fn intrinsics_are_as_defined() {
    let mut out = [0i32; 17];
    run("intrinsics", 1, 1, Mode::ALL[0], &addresses(&[out.as_mut_ptr().cast()]));
    let permuted = 0x77225500; // bytes 0, 5, 2, 7 from the lowest
    let differences = 0x081828ffu32 as i32;
    let expected =
        [8, 31, 4, i32::MIN, 3, permuted, 18, differences, 2, -4, -3, i32::MAX, 0, 3, 2, 0x88112233u32 as i32, 11];
    assert_eq!(out, expected);
}
