//! ECDSA with P-256 by one key, many signatures at once.
//!
//! A responder's signatures are all checked with the same key, so that both points of
//! `R = u1·G + u2·Q` (FIPS 186-5 section 6.4.2) are fixed: their multiples are kept, and a signature
//! takes 74 additions and no doubling. Additions are made in affine coordinates, whose one division each
//! is shared by all additions of all signatures that can be made at the same time (Montgomery's trick).
//! That takes a fifth of the time of a verification which knows nothing of its key.
//!
//! Only ever says yes: where the formulas do not hold (a sum of equal or of opposite points, which
//! nobody meets by chance) nothing is shown, and who asks verifies otherwise. All of it is public: no
//! care is taken that time tells nothing.

use std::sync::LazyLock;

use crrl::field::GFp256 as Field;
use crrl::p256::{Point, Scalar};

/// Bits of a scalar for which one multiple is added. Seven take 151 KB for a point; six 88 KB and a
/// sixth more time, eight 262 KB and hardly less.
const WINDOW: usize = 7;
/// Windows of a scalar of up to 255 bits, with room for the carry of signed digits.
const WINDOWS: usize = 256_usize.div_ceil(WINDOW);
/// Multiples of a point that are kept for a window: from 1 on; the sign takes the other half.
const MULTIPLES: usize = 1 << (WINDOW - 1);
/// Signatures worked on together: their points are to fit the cache of a core, their divisions are few.
const TOGETHER: usize = 32;

/// The multiples of the curve's base point, for every key.
static BASE: LazyLock<Multiples> = LazyLock::new(|| Multiples::of(Point::BASE));

/// A point of the curve other than the neutral element. One line of the cache.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Affine {
    x: Field,
    y: Field,
}

/// What is claimed to be signed.
pub(super) struct Claim {
    /// SHA-256 of the message.
    pub(super) digest: [u8; 32],
    /// r‖s.
    pub(super) signature: [u8; 64],
}

/// A public key of P-256 with its multiples.
pub(super) struct FixedKey(Multiples);

impl FixedKey {
    /// From an uncompressed point (SEC 1 section 2.3.3); none when it is not on the curve. Takes a
    /// millisecond or two.
    pub(super) fn new(public_key: &[u8]) -> Option<Self> {
        // The neutral element has an encoding, too.
        let point = (public_key.len() == 65).then(|| Point::decode(public_key)).flatten()?;
        Some(Self(Multiples::of(point)))
    }

    /// Which of the claims are shown to be true.
    pub(super) fn shows(&self, claims: &[Claim]) -> Vec<bool> {
        claims.chunks(TOGETHER).flat_map(|claims| self.shows_together(claims)).collect()
    }

    fn shows_together(&self, claims: &[Claim]) -> Vec<bool> {
        let halves = claims.iter().map(|claim| claim.signature.split_at(32));
        let (rs, mut inverses): (Vec<_>, Vec<_>) = halves.map(|(r, s)| (scalar(r), scalar(s))).unzip();
        Scalar::batch_invert(&mut inverses);
        let mut sums = Sums::with_capacity(claims.len());
        for ((claim, r), inverse) in claims.iter().zip(&rs).zip(&inverses) {
            let digest = Scalar::decode_reduce(&reversed(&claim.digest));
            sums.begin();
            // What is out of range has become zero, and has no sum.
            if r.iszero() == 0 && inverse.iszero() == 0 {
                BASE.select(digest * inverse, &mut sums.points);
                self.0.select(*r * inverse, &mut sums.points);
            }
        }
        let same = |(sum, r): (Option<Affine>, Scalar)| {
            sum.is_some_and(|sum| Scalar::decode_reduce(&sum.x.encode32()).equals(r) != 0)
        };
        sums.add_up().into_iter().zip(rs).map(same).collect()
    }
}

/// An integer of 32 octets; zero unless it is below the curve's order.
fn scalar(octets: &[u8]) -> Scalar {
    Scalar::decode32(&reversed(octets)).0
}

/// The library's octets are little-endian.
fn reversed(octets: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().rev().zip(octets) {
        *to = *from;
    }
    out
}

/// `d·2^(WINDOW·w)·P` for every window `w` and `d` from 1 to [`MULTIPLES`].
struct Multiples(Vec<Affine>);

impl Multiples {
    fn of(point: Point) -> Self {
        let (mut points, mut divisors) = (Vec::new(), Vec::new());
        let mut first = point;
        for _ in 0..WINDOWS {
            let mut multiple = first;
            for _ in 0..MULTIPLES {
                let (x, y, z) = multiple.to_projective();
                points.push(Affine { x, y });
                divisors.push(z);
                multiple += first;
            }
            first = first.xdouble(WINDOW as u32);
        }
        Field::batch_invert(&mut divisors);
        for (point, inverse) in points.iter_mut().zip(divisors) {
            point.x *= inverse;
            point.y *= inverse;
        }
        Self(points)
    }

    /// The points whose sum is `factor` times this one.
    fn select(&self, factor: Scalar, points: &mut Vec<Affine>) {
        let (octets, negated) = (factor.encode32(), (-factor).encode32());
        // The smaller of the two has 255 bits.
        let negative = octets.iter().rev().gt(negated.iter().rev());
        let digits = digits(if negative { &negated } else { &octets });
        for (multiples, digit) in self.0.chunks_exact(MULTIPLES).zip(digits) {
            let Some(at) = usize::from(digit.unsigned_abs()).checked_sub(1) else { continue };
            let Affine { x, y } = multiples[at];
            points.push(Affine { x, y: if (digit < 0) == negative { y } else { -y } });
        }
    }
}

/// A little-endian integer below 2^255 in digits from `1 - MULTIPLES` to `MULTIPLES`, least first.
fn digits(octets: &[u8; 32]) -> [i16; WINDOWS] {
    let mut digits = [0; WINDOWS];
    let (mut waiting, mut bits) = (0_u32, 0);
    let mut octets = octets.iter();
    let mut carry = 0;
    for digit in &mut digits {
        while bits < WINDOW {
            waiting |= u32::from(octets.next().copied().unwrap_or(0)) << bits;
            bits += 8;
        }
        let window = (waiting & ((1 << WINDOW) - 1)) as i16 + carry;
        waiting >>= WINDOW;
        bits -= WINDOW;
        carry = i16::from(window > MULTIPLES as i16);
        *digit = window - (carry << WINDOW);
    }
    debug_assert_eq!(carry, 0, "at most 255 bits");
    digits
}

/// Points to add up, several sums at a time.
struct Sums {
    points: Vec<Affine>,
    /// Where each sum's points begin.
    starts: Vec<usize>,
}

impl Sums {
    /// Room for so many signatures.
    fn with_capacity(signatures: usize) -> Self {
        let points = Vec::with_capacity(signatures * 2 * WINDOWS);
        Self { points, starts: Vec::with_capacity(signatures) }
    }

    /// What is added to `points` from here on belongs to the next sum.
    fn begin(&mut self) {
        self.starts.push(self.points.len());
    }

    /// The sums; none for one of no points, or in which equal or opposite points met.
    fn add_up(mut self) -> Vec<Option<Affine>> {
        let ends = self.starts.iter().skip(1).copied().chain([self.points.len()]);
        let mut lengths: Vec<_> = self.starts.iter().zip(ends).map(|(start, end)| end - start).collect();
        let mut valid: Vec<_> = lengths.iter().map(|length| *length > 0).collect();
        let mut inverses = Vec::with_capacity(self.points.len() / 2);
        // Neighbours are added until one is left of each sum.
        while lengths.iter().any(|length| *length > 1) {
            inverses.clear();
            for (start, length) in self.starts.iter().zip(&lengths) {
                let pairs = self.points[*start..start + length].chunks_exact(2);
                inverses.extend(pairs.map(|pair| pair[1].x - pair[0].x));
            }
            Field::batch_invert(&mut inverses);
            let mut inverse = inverses.iter();
            for ((start, length), valid) in self.starts.iter().zip(&mut lengths).zip(&mut valid) {
                let points = &mut self.points[*start..start + *length];
                for (pair, inverse) in (0..*length / 2).zip(&mut inverse) {
                    *valid &= inverse.iszero() == 0;
                    points[pair] = add(points[2 * pair], points[2 * pair + 1], *inverse);
                }
                if *length % 2 == 1 {
                    points[*length / 2] = points[*length - 1];
                }
                *length = length.div_ceil(2);
            }
        }
        let sums = self.starts.into_iter().zip(valid);
        sums.map(|(start, valid)| if valid { self.points.get(start).copied() } else { None }).collect()
    }
}

/// The sum of two points, given the inverse of the difference of their x.
fn add(a: Affine, b: Affine, inverse: Field) -> Affine {
    let slope = (b.y - a.y) * inverse;
    let x = slope.square() - a.x - b.x;
    Affine { x, y: slope * (a.x - x) - a.y }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `factor` times the point, as the library has it.
    fn times(point: Point, factor: Scalar) -> Option<([u8; 32], [u8; 32])> {
        let octets = (point * factor).encode_uncompressed();
        (octets[0] == 4).then(|| (reversed(&octets[1..33]), reversed(&octets[33..])))
    }

    /// The same from the multiples.
    fn sums_of(multiples: &Multiples, factors: &[Scalar]) -> Vec<Option<([u8; 32], [u8; 32])>> {
        let mut sums = Sums::with_capacity(factors.len());
        for factor in factors {
            sums.begin();
            multiples.select(*factor, &mut sums.points);
        }
        let encode = |point: Affine| (point.x.encode32(), point.y.encode32());
        sums.add_up().into_iter().map(|sum| sum.map(encode)).collect()
    }

    #[test]
    fn digits_add_up_to_the_integer() {
        let largest = std::array::from_fn(|at| if at == 31 { 0x7f } else { 0xff });
        for octets in [[0; 32], [1; 32], [0x7f; 32], largest] {
            let digits = digits(&octets);
            assert!(digits.iter().all(|digit| (1 - MULTIPLES as i16..=MULTIPLES as i16).contains(digit)));
            let mut sum = Scalar::ZERO;
            for digit in digits.iter().rev() {
                sum = sum * Scalar::from_u32(1 << WINDOW) + Scalar::from_i32((*digit).into());
            }
            assert_eq!(sum.encode32(), Scalar::decode_reduce(&octets).encode32(), "{octets:02x?}");
        }
    }

    #[test]
    fn the_ends_of_the_range_of_factors_give_the_right_points() {
        let half = Scalar::ONE / Scalar::from_u32(2);
        let factors: Vec<_> = [Scalar::ONE, half, Scalar::from_u32(64), Scalar::from_u32(65)]
            .into_iter()
            .flat_map(|factor| [factor, -factor, half + factor, half - factor])
            .collect();
        let expected: Vec<_> = factors.iter().map(|factor| times(Point::BASE, *factor)).collect();
        assert_eq!(sums_of(&BASE, &factors), expected);
        assert!(expected.iter().filter(|point| point.is_some()).count() >= 14, "zero alone has no point");
    }

    #[test]
    fn where_equal_or_opposite_points_meet_nothing_is_shown_and_the_neighbours_are_right() {
        let [a, b] = [BASE.0[0], BASE.0[1]];
        let mut sums = Sums::with_capacity(5);
        let opposite = Affine { x: a.x, y: -a.y };
        for points in [&[a, b][..], &[a, a], &[a, opposite], &[], &[b, b, b], &[b]] {
            sums.begin();
            sums.points.extend_from_slice(points);
        }
        let sums: Vec<_> = sums.add_up().into_iter().map(|sum| sum.map(|point| point.x.encode32())).collect();
        let of = |factor| times(Point::BASE, Scalar::from_u32(factor)).map(|(x, _)| x);
        assert_eq!(sums, [of(3), None, None, None, None, of(2)]);
    }

    #[test]
    fn what_is_no_point_of_the_curve_is_no_key() {
        let good = Point::BASE.encode_uncompressed();
        assert!(FixedKey::new(&good).is_some());
        let mut off_the_curve = good;
        off_the_curve[64] ^= 1;
        for bad in [&off_the_curve[..], &[0], &Point::BASE.encode_compressed(), &[4; 64], &[]] {
            assert!(FixedKey::new(bad).is_none(), "{bad:02x?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn multiples_add_up_to_what_multiplication_gives(
            key in any::<[u8; 32]>(),
            factors in proptest::collection::vec(any::<[u8; 32]>(), 1..6),
        ) {
            let point = Point::BASE * Scalar::decode_reduce(&key);
            let multiples = Multiples::of(point);
            let factors: Vec<_> = factors.iter().map(|factor| Scalar::decode_reduce(factor)).collect();
            let expected: Vec<_> = factors.iter().map(|factor| times(point, *factor)).collect();
            prop_assert_eq!(sums_of(&multiples, &factors), expected);
        }
    }
}
