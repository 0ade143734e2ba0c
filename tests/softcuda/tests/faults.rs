//! Faults of kernels show: in an error, or in a wrong result in at least one mode.

mod probe;

use probe::{addresses, in_all_modes, launch, try_run};
use softcuda::emulate::{Copies, Launch, Library, Mode, Order};

/// The modes in which a kernel's result is not the expected one.
fn modes_with_wrong_result<T: Copy + PartialEq>(expected: &[T], mut run: impl FnMut(Mode, &mut [T])) -> Vec<Mode> {
    let wrong = |mode: &Mode| {
        let mut out = expected.to_vec();
        out.reverse();
        run(*mode, &mut out);
        out != expected
    };
    Mode::ALL.into_iter().filter(wrong).collect()
}

#[test]
fn a_copy_that_is_not_waited_for_shows_where_copies_are_late() {
    let input: Vec<u128> = (100..164).collect();
    let expected: Vec<u128> = (100..164).rev().collect();
    let wrong = |kernel: &str| {
        modes_with_wrong_result(&expected, |mode, out| {
            let params = addresses(&[input.as_ptr().cast(), out.as_mut_ptr().cast()]);
            try_run(kernel, 1, 64, mode, &params).expect("no error");
        })
    };
    assert_eq!(wrong("copy_waited"), []);
    assert_eq!(
        wrong("copy_not_waited"),
        Mode::ALL.into_iter().filter(|mode| mode.copies == Copies::Late).collect::<Vec<_>>()
    );
}

#[test]
fn a_missing_barrier_shows_in_one_of_the_orders() {
    let input: Vec<u32> = (0..128).map(|i| i * 3).collect();
    let expected: Vec<u32> = (0..4).flat_map(|step| input.iter().rev().map(move |v| v + step)).collect();
    let wrong = |kernel: &str| {
        modes_with_wrong_result(&expected, |mode, out| {
            let params = addresses(&[input.as_ptr().cast(), out.as_mut_ptr().cast()]);
            try_run(kernel, 1, 128, mode, &params).expect("no error");
        })
    };
    assert_eq!(wrong("steps_right"), []);
    assert_eq!(wrong("steps_no_barrier_before").len(), 4);
    assert!(wrong("steps_no_barrier_after").iter().any(|mode| mode.order == Order::Greedy));

    let first_writes = modes_with_wrong_result(&[42; 64], |mode, out| {
        try_run("first_warp_writes", 1, 64, mode, &addresses(&[out.as_mut_ptr().cast()])).expect("no error");
    });
    assert!(
        !first_writes.is_empty() && first_writes.iter().all(|mode| mode.order == Order::Greedy),
        "{first_writes:?}"
    );
}

#[test]
fn dependence_on_the_order_of_blocks_shows() {
    let mut results = Vec::new();
    in_all_modes(|mode| {
        let mut cells = [0u32; 5];
        try_run("blocks_in_order", 4, 1, mode, &addresses(&[cells.as_mut_ptr().cast()])).expect("no error");
        results.push(cells);
    });
    assert_eq!(results[0], [0, 1, 2, 3, 4]);
    assert_ne!(results[1], results[0]);
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
    let mut out = [0u32; 32];
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
    let write =
        |offset: u32| launch("write_shared", [2, 1, 1], [32, 1, 1], 100, &[&offset.to_ne_bytes()], Mode::ALL[0]);
    assert_eq!(write(99), Ok(()));
    assert!(write(100).expect_err("in the padding").contains("beyond its dynamic shared memory"));
    assert!(write(128).expect_err("in the page behind").contains("access to"));
}

#[test]
fn shared_memory_holds_nothing_useful_at_first() {
    let mut out = 0u32;
    let address = (&raw mut out as u64).to_ne_bytes();
    in_all_modes(|mode| {
        out = 0;
        launch("read_unwritten", [3, 1, 1], [1, 1, 1], 64, &[&address], mode).expect("no error");
        assert_eq!(out, u32::MAX, "of the last block, {mode:?}");
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
