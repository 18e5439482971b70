//! A million devices: shares are met, and a ramp exposes evenly.

use tidegate_model::facts::Facts;
use tidegate_model::rollout::Ramp;

use super::{device, instant, vectors};

/// For 1,000,000 ids in sequence, as serial numbers are, the counts of the cohorts fit their shares: chi-squared with
/// 6 degrees of freedom stays below 22.46, which chance alone exceeds once in 1,000. And at half of a ramp half of each
/// cohort is exposed, evenly over 64 slices of its positions.
///
/// Nothing here is random: the test gives the same numbers at every run.
#[test]
fn a_million_devices_meet_every_share() {
    const DEVICES: u32 = 1_000_000;
    const CHI_SQUARED_6: f64 = 22.46;
    let shares = [1_000, 9_000, 40_000, 100_000, 150_000, 200_000, 500_000];
    let map = vectors::shares(&shares);
    let facts = Facts::new();
    let half = instant("2026-01-05T18:00:00Z");
    let ramp = Ramp::new(instant("2026-01-05T12:00:00Z"), instant("2026-01-06T00:00:00Z"), 0, 1_000_000).unwrap();
    let exposure = ramp.exposure(half);

    let mut counts = [0_u32; 7];
    let mut exposed = [0_u32; 7];
    // Of the largest cohort, by the low bits of the position, which are independent of whether it is exposed.
    let mut buckets = [(0_u32, 0_u32); 64];
    for serial in 0..DEVICES {
        let placement = map.place(&device(&format!("sn-{serial:07}")), &facts);
        let cohort: usize = placement.cohort.as_str()[1..].parse().unwrap();
        counts[cohort] += 1;
        let covered = exposure.covers(map.salt().ramp_order(&device(&format!("sn-{serial:07}"))).position(12));
        exposed[cohort] += u32::from(covered);
        if cohort == 6 {
            let (all, among) = &mut buckets[usize::try_from(placement.position % 64).unwrap()];
            *all += 1;
            *among += u32::from(covered);
        }
    }
    assert_eq!(counts.iter().sum::<u32>(), DEVICES, "each device is in exactly one cohort");

    let chi_squared: f64 = counts
        .iter()
        .zip(shares)
        .map(|(&count, share)| (f64::from(count) - f64::from(share)).powi(2) / f64::from(share))
        .sum();
    assert!(chi_squared < CHI_SQUARED_6, "chi-squared {chi_squared}, counts {counts:?}");
    for (index, (&among, &all)) in exposed.iter().zip(&counts).enumerate() {
        assert_half(among, all, &format!("cohort c{index}"));
    }
    for (index, (all, among)) in buckets.into_iter().enumerate() {
        assert_half(among, all, &format!("bucket {index}"));
    }
}

/// Within 4.5 standard deviations of a fair coin thrown `all` times.
fn assert_half(among: u32, all: u32, what: &str) {
    let deviation = f64::from(all).sqrt() / 2.0;
    let off = (f64::from(among) - f64::from(all) / 2.0).abs();
    assert!(off <= 4.5 * deviation, "{what}: {among} of {all} exposed at half the ramp");
}

/// No blocks in time either: cut a ramp over everyone into 64 equal steps, and each step exposes one 64th.
#[test]
fn each_step_of_a_ramp_exposes_as_many() {
    const DEVICES: u32 = 64_000;
    let ramp = Ramp::new(instant("2026-01-05T12:00:00Z"), instant("2026-01-06T12:00:00Z"), 0, 1_000_000).unwrap();
    let map = vectors::shares(&[1_000_000]);
    let mut steps = [0_u32; 64];
    for serial in 0..DEVICES {
        let within = map.salt().ramp_order(&device(&format!("sn-{serial:07}"))).position(12);
        let at = ramp.exposed_at(within).unwrap();
        // The second 0 exposes nobody, hence 1 to 86400.
        let second = u32::try_from((at - ramp.start()).num_seconds()).unwrap();
        steps[usize::try_from((second - 1) / 1350).unwrap()] += 1;
    }
    // Chi-squared with 63 degrees of freedom: chance alone exceeds 103.4 once in 1,000.
    let chi_squared: f64 = steps.iter().map(|&count| (f64::from(count) - 1000.0).powi(2) / 1000.0).sum();
    assert!(chi_squared < 103.4, "chi-squared {chi_squared}, steps {steps:?}");
}

/// The order of a ramp differs from release to release: of the devices that are among the first tenth of one, a tenth is among the first
/// tenth of another, and over 100 releases every device is early about as often.
#[test]
fn ramps_have_orders_of_their_own_and_are_fair() {
    const DEVICES: u32 = 20_000;
    let map = vectors::shares(&[1_000_000]);
    let tenth = u64::MAX / 10;
    let (mut both, mut first) = (0_u32, 0_u32);
    let mut early = [0_u32; 101];
    for serial in 0..DEVICES {
        let order = map.salt().ramp_order(&device(&format!("sn-{serial:07}")));
        let is_early = |sequence| order.position(sequence) < tenth;
        first += u32::from(is_early(1));
        both += u32::from(is_early(1) && is_early(2));
        early[(1..=100).filter(|sequence| is_early(*sequence)).count()] += 1;
    }
    // 2,000 and 200 are expected; five standard deviations are 212 and 70.
    assert!(first.abs_diff(2_000) < 212, "{first}");
    assert!(both.abs_diff(200) < 70, "{both}");
    // Of 100 releases a device is early in 10, give or take 3: more than 25 times happens to one in a million.
    assert_eq!(early[26..].iter().sum::<u32>(), 0, "{early:?}");
    let mean = early.iter().zip(0_u32..).map(|(count, times)| count * times).sum::<u32>();
    assert!(mean.abs_diff(10 * DEVICES) < 2_200, "{mean}");
}
