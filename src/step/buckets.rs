//! Buckets: the row counts that graphs are captured for.
//!
//! Kernels read the true sizes from the device, so a bucket costs little in padding: it chooses kernel variants and
//! bounds what a graph may be given.

/// Row counts of forward and sample graphs, in ascending order: powers of two up to `max_rows`, then `max_rows` itself.
pub fn buckets(max_rows: usize) -> Vec<u32> {
    assert!(max_rows >= 1, "a step has at least one row");
    let mut buckets: Vec<u32> =
        (0..32).map(|shift| 1u32 << shift).take_while(|rows| (*rows as usize) < max_rows).collect();
    buckets.push(max_rows as u32);
    buckets
}

/// The smallest bucket that holds `rows`.
pub fn bucket_for(buckets: &[u32], rows: usize) -> u32 {
    let index = buckets.partition_point(|bucket| (*bucket as usize) < rows);
    assert!(index < buckets.len(), "{rows} rows are more than the largest bucket, {:?}", buckets.last());
    buckets[index]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_powers_of_two_and_the_limit() {
        assert_eq!(buckets(1), [1]);
        assert_eq!(buckets(48), [1, 2, 4, 8, 16, 32, 48]);
        assert_eq!(buckets(64), [1, 2, 4, 8, 16, 32, 64]);
    }

    #[test]
    fn the_smallest_bucket_that_holds_the_rows() {
        let list = buckets(48);
        for (rows, expected) in [(0, 1), (1, 1), (2, 2), (3, 4), (33, 48), (48, 48)] {
            assert_eq!(bucket_for(&list, rows), expected, "{rows} rows");
        }
    }
}
