//! Faults of kernels show: in an error, or in another result in at least one mode.

mod probe;

use probe::{addresses, in_all_modes, launch, try_run};
use softcuda::emulate::{Launch, Library, Mode, Order};

/// Numbers that a kernel may read 16 bytes at a time.
fn numbers() -> Vec<u128> {
    (1..=128).map(|i| i << 96 | i << 64 | i << 32 | (1000 + i)).collect()
}

/// What so many threads make of these numbers, as words.
fn run_on_numbers(kernel: &str, blocks: u32, threads: u32, mode: Mode) -> Result<Vec<u32>, String> {
    let (input, mut out) = (numbers(), vec![0u128; 128]);
    try_run(kernel, blocks, threads, mode, &addresses(&[input.as_ptr().cast(), out.as_mut_ptr().cast()]))?;
    Ok(words(&out))
}

fn words(values: &[u128]) -> Vec<u32> {
    values.iter().flat_map(|value| (0..4).map(move |i| (value >> (32 * i)) as u32)).collect()
}

/// The kernel fails in every mode, with all these words in the error.
fn fails_on_numbers(kernel: &str, blocks: u32, threads: u32, expected: &[&str]) {
    in_all_modes(|mode| {
        let error = run_on_numbers(kernel, blocks, threads, mode).expect_err(kernel);
        for word in expected {
            assert!(error.contains(word), "{kernel}, {mode:?}: {error}, without {word:?}");
        }
    });
}

/// The kernel fails in one order of threads and blocks, with all these words in the error: of reads of global memory
/// nothing is kept, so the write has to come first.
fn fails_in_one_order(kernel: &str, blocks: u32, threads: u32, expected: &[&str]) {
    let errors = Mode::ALL.map(|mode| (mode.order, run_on_numbers(kernel, blocks, threads, mode)));
    let orders: Vec<Order> = errors.iter().filter(|(_, ran)| ran.is_err()).map(|(order, _)| *order).collect();
    assert!(orders == [Order::RoundRobin; 2] || orders == [Order::Greedy; 2], "{kernel}: {orders:?}");
    for error in errors.into_iter().filter_map(|(_, ran)| ran.err()) {
        assert!(expected.iter().all(|word| error.contains(word)), "{kernel}: {error}, without {expected:?}");
    }
}

#[test]
fn a_copy_that_is_not_waited_for_is_a_race() {
    let reversed: Vec<u128> = numbers().into_iter().take(64).rev().collect();
    in_all_modes(|mode| {
        assert_eq!(run_on_numbers("copy_waited", 1, 64, mode).expect("no race")[..256], words(&reversed))
    });
    for kernel in ["copy_not_waited", "own_copy_not_waited", "copy_not_committed"] {
        fails_on_numbers(kernel, 1, 64, &["race: it reads the word at byte", "copies to and has not waited for"]);
    }
    fails_on_numbers("copy_over_what_is_read", 1, 64, &["race", "with no barrier between"]);
    fails_on_numbers("copy_left_under_way", 1, 64, &["returned while 1 copies were under way"]);
}

#[test]
fn a_missing_barrier_is_a_race_in_every_order() {
    let input = words(&numbers());
    let steps =
        |of: fn(usize) -> usize| -> Vec<u32> { (0..4 * 128).map(|i| input[of(i % 128)] + i as u32 / 128).collect() };
    in_all_modes(|mode| {
        assert_eq!(run_on_numbers("steps_right", 1, 128, mode).expect("no race"), steps(|i| 127 - i), "{mode:?}");
        assert_eq!(run_on_numbers("lanes_right", 1, 128, mode).expect("no race"), steps(|i| i ^ 31), "{mode:?}");
        assert_eq!(run_on_numbers("count_right", 1, 128, mode).expect("no race")[..128], [128; 128], "{mode:?}");
    });
    for kernel in ["steps_no_barrier_before", "lanes_no_barrier", "warps_without_barrier", "first_warp_writes"] {
        fails_on_numbers(kernel, 1, 128, &["race", "of static shared memory", "with no barrier between"]);
    }
    fails_on_numbers("steps_no_barrier_after", 1, 128, &["race", "with no barrier between"]);
    fails_on_numbers("count_read_too_early", 1, 128, &["race"]);
}

#[test]
fn accesses_to_global_memory_are_ordered_by_barriers_in_a_block() {
    in_all_modes(|mode| {
        let out = run_on_numbers("global_right", 1, 128, mode).expect("no race");
        assert!((0..128).all(|i| out[i as usize] == i.max(127 - i)), "{mode:?}: {out:?}");
    });
    fails_in_one_order("global_no_barrier", 1, 128, &["race: it reads 0x", "with no barrier between"]);
}

#[test]
fn accesses_to_global_memory_are_ordered_by_atomics_and_fences_between_blocks() {
    in_all_modes(|mode| {
        let out = run_on_numbers("last_right", 3, 64, mode).expect("no race");
        assert_eq!(out[..3], [3, 3 * 64, 1], "{mode:?}");
    });
    let no_release = ["race: it reads 0x", "another block wrote with no fence and atomic after that"];
    fails_in_one_order("blocks_in_order", 3, 1, &no_release);
    fails_on_numbers("last_no_fence_before", 3, 64, &no_release);
    fails_on_numbers("last_no_barrier", 3, 64, &no_release);
    fails_on_numbers("last_no_fence_after", 3, 64, &["race: it reads 0x", "with no atomic and fence before that"]);
}

/// The kernel fails in every mode, with all these words in the error.
fn fails(kernel: &str, blocks: u32, threads: u32, words: &[&str]) {
    let mut out = vec![0u32; 4096];
    in_all_modes(|mode| {
        let all = addresses(&[out.as_mut_ptr().cast()]);
        let takes = Library::probes().find(kernel).expect("a kernel").parameter_bytes.len();
        let error = try_run(kernel, blocks, threads, mode, &all[..takes]).expect_err(kernel);
        assert!(error.starts_with(&format!("{kernel}, block (")), "{error}");
        for word in words {
            assert!(error.contains(word), "{kernel}, {mode:?}: {error}, without {word:?}");
        }
    });
}

#[test]
fn divergent_barriers_are_reported() {
    fails("barrier_of_some", 1, 64, &["divergent barrier", "__syncthreads", "__shfl_xor_sync"]);
    fails("barriers_of_two_lines", 1, 64, &["thread (", "divergent barrier", "wrong.cu:"]);
}

#[test]
fn divergent_warps_are_reported() {
    fails("lanes_in_two_exchanges", 1, 32, &["thread (", "divergent warp", "__ballot_sync", "__shfl_xor_sync"]);
    fails("lane_outside_its_mask", 1, 32, &["thread (", "mask 0000ffff"]);
    fails("lane_that_takes_no_part", 1, 32, &["reads lane 20"]);
    fails("product_of_half_a_warp", 1, 32, &["mma_bf16", "lanes 0000ffff"]);
}

#[test]
fn a_return_without_the_wait_is_reported_in_a_chain_only() {
    fails("no_wait_where_it_leaves", 2, 32, &["block (1, 0, 0), thread (5, 0, 0)", "pdl_wait"]);
    let mut out = [0u32; 64];
    let address = (out.as_mut_ptr() as u64).to_ne_bytes();
    let free = Launch {
        kernel: "no_wait_where_it_leaves",
        grid: [2, 1, 1],
        block: [32, 1, 1],
        shared_bytes: 0,
        params: &[&address],
        mode: Mode::ALL[0],
        chained: false,
        predecessor: None,
        is_memory: None,
    };
    Library::probes().launch(free).expect("not chained, no wait");
}

/// What a kernel reads of a buffer that its predecessor fills with 7 when it ends.
fn read_of_predecessor(kernel: &str, mode: Mode) -> Vec<u32> {
    let (input, mut out) = (vec![0u32; 64], vec![0u32; 64]);
    let input_pointer = input.as_ptr().cast_mut();
    // SAFETY: the buffer has 64 values and lives until the launch has ended; nothing else refers to it meanwhile.
    let mut end = || unsafe { std::slice::from_raw_parts_mut(input_pointer, 64) }.fill(7);
    let params = addresses(&[input_pointer.cast(), out.as_mut_ptr().cast()]);
    let launch = Launch {
        kernel,
        grid: [1, 1, 1],
        block: [64, 1, 1],
        shared_bytes: 0,
        params: &probe::slices(&params),
        mode,
        chained: true,
        predecessor: Some(&mut end),
        is_memory: None,
    };
    Library::probes().launch(launch).expect("no error");
    out
}

#[test]
fn a_read_before_the_wait_sees_what_was_there_before() {
    in_all_modes(|mode| {
        assert_eq!(read_of_predecessor("read_after_wait", mode), [7; 64], "{mode:?}");
        assert_eq!(read_of_predecessor("read_before_wait", mode), [0; 64], "{mode:?}");
    });
}

#[test]
fn addresses_of_copies_are_checked() {
    let input = [0u128; 8];
    let known = input.as_ptr() as u64..input.as_ptr() as u64 + 128;
    let copy = |offset: u32, from: u32| {
        let is_memory = |address: u64, bytes: u64| known.start <= address && address + bytes <= known.end;
        let input = known.start.to_ne_bytes();
        Library::probes().launch(Launch {
            kernel: "copy_to",
            grid: [1, 1, 1],
            block: [1, 1, 1],
            shared_bytes: 64,
            params: &[&input, &offset.to_ne_bytes(), &from.to_ne_bytes()],
            mode: Mode::ALL[0],
            chained: true,
            predecessor: None,
            is_memory: Some(&is_memory),
        })
    };
    assert_eq!(copy(48, 112), Ok(()));
    for (offset, from, word) in [
        (64, 0, "would be byte 64"),
        (8, 0, "no multiple of 16"),
        (0, 8, "no multiple of 16"),
        (0, 128, "not in device memory"),
    ] {
        let error = copy(offset, from).expect_err("a wrong address");
        assert!(error.contains(word) && error.contains("thread (0, 0, 0): copy_async"), "{error}");
    }
}

#[test]
fn accesses_to_no_memory_are_errors() {
    let mut out = 0u32;
    for address in [0u64, 64, 0xdead_beef_0000, u64::MAX << 48] {
        let params = [address.to_ne_bytes(), (&raw mut out as u64).to_ne_bytes()];
        let error = try_run("read_address", 3, 1, Mode::ALL[0], &params).expect_err("no memory there");
        assert!(error.starts_with("read_address, block (0, 0, 0), thread (0, 0, 0): access to"), "{error}");
    }
    let (value, threads) = (77u32, std::thread::spawn(|| {}));
    threads.join().expect("signals are left as they were");
    try_run("read_address", 1, 1, Mode::ALL[0], &addresses(&[(&raw const value).cast(), (&raw mut out).cast()]))
        .expect("memory");
    assert_eq!(out, 77);
}

#[test]
fn writes_beyond_dynamic_shared_memory_are_errors() {
    let write = |offset: u32| launch("write_shared", [2, 1, 1], [1, 1, 1], 100, &[&offset.to_ne_bytes()], Mode::ALL[0]);
    assert_eq!(write(99), Ok(()));
    assert!(write(100).expect_err("in the padding").contains("beyond its dynamic shared memory"));
    assert!(write(128).expect_err("in the page behind").contains("access to"));
}

#[test]
fn shared_memory_holds_nothing_useful_at_first() {
    in_all_modes(|mode| {
        let mut out = [0u32; 3];
        let address = (out.as_mut_ptr() as u64).to_ne_bytes();
        launch("read_unwritten", [3, 1, 1], [1, 1, 1], 64, &[&address], mode).expect("no error");
        assert_eq!(out, [u32::MAX; 3], "{mode:?}");
    });
}

#[test]
fn a_stack_that_is_too_small_is_an_error() {
    fails("deep_stack", 1, 1, &["stack"]);
}

#[test]
fn impossible_launches_are_refused() {
    let none: &[&[u8]] = &[];
    let refused = |kernel, grid, block, shared, params: &[&[u8]], word: &str| {
        let error = launch(kernel, grid, block, shared, params, Mode::ALL[0]).expect_err("refused");
        assert!(error.starts_with(kernel) && error.contains(word), "{error}");
    };
    refused("nothing", [1, 1, 1], [1, 1, 1], 0, none, "no kernel");
    refused("barriers_of_two_lines", [0, 1, 1], [1, 1, 1], 0, none, "grid");
    refused("barriers_of_two_lines", [1, 65536, 1], [1, 1, 1], 0, none, "grid");
    refused("barriers_of_two_lines", [1, 1, 1], [1025, 1, 1], 0, none, "threads");
    refused("barriers_of_two_lines", [1, 1, 1], [32, 32, 2], 0, none, "threads");
    refused("barriers_of_two_lines", [1, 1, 1], [1, 1, 1], 1 << 20, none, "shared memory");
    refused("barriers_of_two_lines", [1, 1, 1], [1, 1, 1], 0, &[&[0; 4]], "takes []");
    refused("write_shared", [1, 1, 1], [1, 1, 1], 0, &[&[0; 8]], "takes [4]");
}
