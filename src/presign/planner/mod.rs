//! When each certificate's next answer is due, in memory, and which of those due comes first.
//!
//! 16 octets a certificate, and an entry of 4 in the calendar or in a queue: adding, rescheduling and
//! taking cost the same at any size. No store and no clock: times come in, decisions go out.
//!
//! What is due is ranked by its legal deadline in the refresh lane, and by when it became due in the
//! lanes of certificates that have no answer for their present status.

mod pages;
mod queues;
#[cfg(test)]
mod tests;

use std::time::Duration;

use pages::{Item, Pages, Standing, pack, unpack};
use queues::{Beyond, Calendar, Queue, Soon, Times};

use crate::clock::UnixTime;
use crate::ocsp::Freshness;
use crate::signer::Lane;
use crate::store::{AnswerTimes, CertificateKey};

/// Certificates with something in common that may stand in the way of signing: those of one issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(pub u16);

/// What is planned for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its group, made by [`Planner::set_freshness`].
    pub group: Group,
    /// The lane in which it will be signed.
    pub lane: Lane,
    /// When it is to be taken.
    pub due: UnixTime,
    /// thisUpdate and nextUpdate of the answer that it has for its present status.
    pub answer: Option<(UnixTime, UnixTime)>,
}

impl Plan {
    /// The times of a stored answer as a plan has them.
    #[must_use]
    pub const fn times(answer: &AnswerTimes) -> (UnixTime, UnixTime) {
        (answer.this_update, answer.next_update)
    }
}

/// A certificate that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The certificate.
    pub key: CertificateKey,
    /// Its group.
    pub group: Group,
    /// The lane.
    pub lane: Lane,
    /// Its rank: the legal deadline of the answer it has, else when it became due.
    pub deadline: UnixTime,
    /// It has failed alone before.
    pub retry: bool,
}

/// How much waits in a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Certificates that are due and not taken.
    pub due: u64,
    /// When the oldest of them became due.
    pub oldest: Option<UnixTime>,
}

/// What the planner knows of the time to come. Times come from buckets and are early by the length
/// of one at the most, or by more where what was first in a bucket has left it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Planned certificates.
    pub planned: u64,
    /// What waits, in the order of [`Lane::ALL`]; nothing in the live lane.
    pub lanes: [Depth; 4],
    /// Answers past their legal deadline that wait to be replaced.
    pub stale: u64,
    /// The earliest legal deadline.
    pub stale_at: Option<UnixTime>,
    /// The earliest nextUpdate.
    pub expires_at: Option<UnixTime>,
}

/// The queue of those that failed alone stands where the live lane would.
const RETRIES: usize = Lane::Live.index();

/// Entries that do not count, beyond half the certificates, before the queues are rebuilt.
const LITTER: usize = 16_384;

/// When each certificate is due.
#[derive(Debug)]
pub struct Planner {
    pages: Pages,
    calendar: Calendar,
    soon: Soon,
    far: Vec<u32>,
    /// When what is beyond the calendar's end is looked at again.
    far_again: u32,
    queues: Vec<[Queue; 4]>,
    freshness: Vec<Freshness>,
    /// Planned certificates of each group.
    sizes: Vec<u32>,
    /// Entries in calendar, heap, list and queues, whether they count or not.
    entries: usize,
    under_way: usize,
}

impl Planner {
    /// Nothing planned. Certificates that wait for the same `grain` of time, cut to a power of two of
    /// seconds, are kept together; each is taken at its own second all the same.
    #[must_use]
    pub fn new(grain: Duration, now: UnixTime) -> Self {
        let shift = grain.as_secs().max(1).ilog2().min(20);
        Self {
            pages: Pages::new(),
            calendar: Calendar::new(shift, pack(now)),
            soon: Soon::default(),
            far: Vec::new(),
            far_again: 0,
            queues: Vec::new(),
            freshness: Vec::new(),
            sizes: Vec::new(),
            entries: 0,
            under_way: 0,
        }
    }

    /// A grain that suits a refresh interval: some thousand to an interval.
    #[must_use]
    pub fn grain(refresh: Duration) -> Duration {
        (refresh / 8_192).max(Duration::from_secs(1))
    }

    /// Sets the rules of a group, the next new one or one that is there. What is planned keeps its due
    /// time; [`Planner::reckon_anew`] must follow when answers of this group are planned.
    pub fn set_freshness(&mut self, group: Group, freshness: Freshness) {
        let at = usize::from(group.0);
        if self.freshness.len() <= at {
            self.freshness.resize(at + 1, freshness);
            self.sizes.resize(at + 1, 0);
            self.queues.resize_with(at + 1, Default::default);
        }
        self.freshness[at] = freshness;
    }

    /// Plans a certificate, or plans it anew. One under way is planned for afterwards, unless the lane
    /// it is planned for now goes before the one it was taken from: then it is taken once more.
    pub fn set(&mut self, key: CertificateKey, plan: Plan, now: UnixTime) {
        let Some(place) = self.pages.place(key) else { return };
        let mut item = self.pages.get(place);
        let overtakes = plan.lane < item.way() && plan.due <= now;
        if item.standing == Standing::UnderWay && !overtakes {
            write(&mut item, &plan);
            item.set_again(true);
            self.pages.put(place, item);
            return;
        }
        match item.standing {
            Standing::UnderWay => self.under_way -= 1,
            Standing::Absent => self.sizes[usize::from(plan.group.0)] += 1,
            _ => self.leave(&item),
        }
        // Who waits for it waits until there is an answer.
        let haste = item.haste() && plan.answer.is_none();
        write(&mut item, &plan);
        item.set_haste(haste);
        item.set_again(false);
        item.set_retry(false);
        self.enter(place, item, pack(now));
    }

    /// Lets a certificate that is due go before all others of its lane.
    pub fn hasten(&mut self, key: CertificateKey) {
        let Some(place) = self.pages.find(key) else { return };
        let mut item = self.pages.get(place);
        if item.standing == Standing::Ready && !item.haste() && !item.retry() {
            self.leave(&item);
            item.set_haste(true);
            self.queue(place, item);
        }
    }

    /// Forgets a certificate, under way or not.
    pub fn remove(&mut self, key: CertificateKey) {
        let Some(place) = self.pages.find(key) else { return };
        let item = self.pages.get(place);
        if item.standing == Standing::UnderWay {
            self.under_way -= 1;
        } else {
            self.leave(&item);
        }
        self.sizes[usize::from(item.group)] -= 1;
        self.pages.put(place, Item::default());
        self.tidy();
    }

    /// Queues what is due at `now`. To be called whenever time has gone on.
    pub fn advance(&mut self, now: UnixTime) {
        let now = pack(now);
        while let Some((number, places)) = self.calendar.open(now) {
            // Those of the bucket before are due when this one begins.
            self.queue_soon(now);
            self.open(number, &places, now);
        }
        if self.calendar.begin() >= self.far_again {
            self.far_again = self.calendar.begin().saturating_add(self.calendar.span() / 2);
            for place in std::mem::take(&mut self.far) {
                self.entries -= 1;
                let item = self.pages.get(place);
                if item.standing == Standing::Far {
                    self.enter(place, item, now);
                }
            }
        }
        self.queue_soon(now);
    }

    /// Takes in the places of a bucket that has begun.
    fn open(&mut self, number: u32, places: &[u32], now: u32) {
        self.entries -= places.len();
        // First of all only read: no cache holds them, and nothing else keeps the processor from waiting
        // for many at once.
        let mut begun = Vec::with_capacity(places.len());
        for &place in places {
            let item = self.pages.get(place);
            if item.standing == Standing::Waiting && item.due >> self.calendar.shift == number {
                begun.push((item.due, place));
            }
        }
        begun.sort_unstable_by(|one, other| other.cmp(one));
        // One that left and came back has two entries.
        begun.dedup();
        let due = begun.partition_point(|(due, _)| *due > now);
        for (_, place) in begun.drain(due..) {
            self.queue(place, self.pages.get(place));
        }
        for (_, place) in &begun {
            let mut item = self.pages.get(*place);
            item.standing = Standing::Soon;
            self.pages.put(*place, item);
        }
        self.entries += begun.len();
        self.soon.open(begun);
    }

    /// Queues what is due soon and now.
    fn queue_soon(&mut self, now: u32) {
        while let Some((due, place)) = self.soon.pop(now) {
            self.entries -= 1;
            let item = self.pages.get(place);
            if item.standing == Standing::Soon && item.due == due {
                self.queue(place, item);
            }
        }
    }

    /// Takes the first of a lane, leaving out groups that are `blocked`.
    pub fn take(&mut self, lane: Lane, blocked: impl Fn(Group) -> bool) -> Option<Taken> {
        self.take_from(lane.index(), lane, blocked)
    }

    /// Takes the first of those that failed alone before and whose wait is over.
    pub fn take_retry(&mut self, blocked: impl Fn(Group) -> bool) -> Option<Taken> {
        self.take_from(RETRIES, Lane::Refresh, blocked)
    }

    /// Whether one that failed alone before is due.
    #[must_use]
    pub fn has_retry(&self) -> bool {
        self.queues.iter().any(|queues| queues[RETRIES].counting() > 0)
    }

    fn take_from(&mut self, queue: usize, lane: Lane, blocked: impl Fn(Group) -> bool) -> Option<Taken> {
        loop {
            let ranked = self.queues.iter().zip(0u16..).filter_map(|(queues, group)| {
                queues[queue].rank().filter(|_| !blocked(Group(group))).map(|rank| (rank, group))
            });
            let (_, group) = ranked.min()?;
            let (pages, freshness) = (&self.pages, &self.freshness[usize::from(group)]);
            let shift = self.calendar.shift;
            let (place, dropped) = self.queues[usize::from(group)][queue].pop(|place, rank| {
                let item = pages.get(place);
                item.standing == Standing::Ready
                    && item.group == group
                    && queue_of(&item) == queue
                    && rank_of(&item, stale_of(&item, freshness), shift) == rank
            });
            self.entries -= dropped;
            if let Some(place) = place {
                let lane = if queue == RETRIES { self.pages.get(place).lane() } else { lane };
                return Some(self.begin(place, lane));
            }
        }
    }

    /// Takes the first in the calendar ahead of its time, leaving out groups that are `blocked`.
    pub fn take_early(&mut self, blocked: impl Fn(Group) -> bool) -> Option<Taken> {
        let mut held = Vec::new();
        let pages = &self.pages;
        let (place, dropped) = self.calendar.pop(|place| {
            let item = pages.get(place);
            // Without an answer it waits for its validity to begin, or to be tried again.
            let counts = item.standing == Standing::Waiting && item.this_update != 0 && !item.retry();
            if counts && blocked(Group(item.group)) {
                held.push(place);
                return false;
            }
            counts || {
                if item.standing == Standing::Waiting {
                    held.push(place);
                }
                false
            }
        });
        self.entries -= dropped;
        for place in held {
            let item = self.pages.get(place);
            self.leave(&item);
            self.enter(place, item, 0);
        }
        place.map(|place| self.begin(place, Lane::Refresh))
    }

    fn begin(&mut self, place: u32, lane: Lane) -> Taken {
        let mut item = self.pages.get(place);
        let taken = Taken {
            key: self.pages.key(place),
            group: Group(item.group),
            lane,
            deadline: unpack(self.stale(&item)),
            retry: item.retry(),
        };
        item.standing = Standing::UnderWay;
        item.set_way(lane);
        item.set_again(false);
        self.pages.put(place, item);
        self.under_way += 1;
        taken
    }

    /// Ends what was taken from a lane, with a new plan. News that came meanwhile go before it. Returns
    /// false when it was forgotten, or taken once more in another lane: then nothing changes.
    pub fn finish(&mut self, lane: Lane, key: CertificateKey, plan: Plan, now: UnixTime) -> bool {
        let Some((place, mut item)) = self.under_way_in(lane, key) else { return false };
        self.under_way -= 1;
        if !item.again() {
            write(&mut item, &plan);
            item.set_retry(false);
            if item.this_update != 0 {
                item.set_haste(false);
            }
        }
        item.set_again(false);
        self.enter(place, item, pack(now));
        true
    }

    /// Ends what was taken from a lane, to be due again at `due` and otherwise as before. `retry` says
    /// that it failed alone. News that came meanwhile go before it. Returns as [`Planner::finish`].
    pub fn put_back(
        &mut self,
        lane: Lane,
        key: CertificateKey,
        due: UnixTime,
        retry: bool,
        now: UnixTime,
    ) -> bool {
        let Some((place, mut item)) = self.under_way_in(lane, key) else { return false };
        self.under_way -= 1;
        if !item.again() {
            item.due = pack(due);
            item.set_retry(retry);
        }
        item.set_again(false);
        self.enter(place, item, pack(now));
        true
    }

    /// Ends what was taken from a lane and forgets it, unless news came meanwhile. Returns as
    /// [`Planner::finish`].
    pub fn forget(&mut self, lane: Lane, key: CertificateKey, now: UnixTime) -> bool {
        let Some((place, mut item)) = self.under_way_in(lane, key) else { return false };
        if item.again() {
            self.under_way -= 1;
            item.set_again(false);
            self.enter(place, item, pack(now));
        } else {
            self.remove(key);
        }
        true
    }

    /// Makes one that waits due at `now`, whatever it waits for.
    pub fn wake(&mut self, key: CertificateKey, now: UnixTime) {
        let Some(place) = self.pages.find(key) else { return };
        let mut item = self.pages.get(place);
        if matches!(item.standing, Standing::Waiting | Standing::Soon | Standing::Far) {
            self.leave(&item);
            item.due = item.due.min(pack(now));
            item.set_retry(false);
            self.enter(place, item, pack(now));
        }
    }

    fn under_way_in(&self, lane: Lane, key: CertificateKey) -> Option<(u32, Item)> {
        let place = self.pages.find(key)?;
        let item = self.pages.get(place);
        (item.standing == Standing::UnderWay && item.way() == lane).then_some((place, item))
    }

    /// Plans every certificate anew after the clock or the rules have changed: `again` is told what is
    /// planned and says what shall be.
    pub fn reckon_anew(&mut self, now: UnixTime, mut again: impl FnMut(Plan) -> Plan) {
        let places: Vec<u32> = self.pages.places().collect();
        self.calendar = Calendar::new(self.calendar.shift, pack(now));
        (self.soon, self.far, self.far_again, self.entries) = (Soon::default(), Vec::new(), 0, 0);
        self.queues.iter_mut().for_each(|queues| *queues = Default::default());
        for place in places {
            let mut item = self.pages.get(place);
            let answer =
                (item.this_update != 0).then(|| (unpack(item.this_update), unpack(item.next_update)));
            let plan = Plan { group: Group(item.group), lane: item.lane(), due: unpack(item.due), answer };
            write(&mut item, &again(plan));
            if item.standing == Standing::UnderWay {
                self.pages.put(place, item);
            } else {
                self.enter(place, item, pack(now));
            }
        }
    }

    /// Puts an item where it waits.
    fn enter(&mut self, place: u32, mut item: Item, now: u32) {
        if item.due <= now {
            self.queue(place, item);
            return;
        }
        let times = Times { due: item.due, stale: self.stale(&item), expires: expires(&item) };
        item.standing = match self.calendar.push(place, times) {
            Ok(()) => Standing::Waiting,
            Err(Beyond::Before) => {
                self.soon.push(item.due, place);
                Standing::Soon
            }
            Err(Beyond::After) => {
                self.far.push(place);
                Standing::Far
            }
        };
        self.entries += 1;
        self.pages.put(place, item);
        self.tidy();
    }

    fn queue(&mut self, place: u32, mut item: Item) {
        item.standing = Standing::Ready;
        self.pages.put(place, item);
        let group = usize::from(item.group);
        let stale = self.stale(&item);
        let rank = rank_of(&item, stale, self.calendar.shift);
        let times = Times { due: item.due, stale, expires: expires(&item) };
        self.queues[group][queue_of(&item)].push(rank, place, times);
        self.entries += 1;
        self.tidy();
    }

    /// Lets the entry of an item count no more.
    fn leave(&mut self, item: &Item) {
        match item.standing {
            Standing::Waiting => self.calendar.leave(item.due),
            Standing::Ready => {
                let group = usize::from(item.group);
                let rank = rank_of(item, self.stale(item), self.calendar.shift);
                self.queues[group][queue_of(item)].leave(rank);
            }
            Standing::Absent | Standing::Far | Standing::Soon | Standing::UnderWay => {}
        }
    }

    /// Rebuilds calendar and queues when most of what is in them does not count.
    fn tidy(&mut self) {
        let counting = self.pages.planned() - self.under_way;
        if self.entries > counting + counting / 2 + LITTER {
            let calendar = &self.calendar;
            let now = unpack(calendar.begin());
            self.rebuild(now);
        }
    }

    fn rebuild(&mut self, now: UnixTime) {
        let places: Vec<u32> = self.pages.places().collect();
        self.calendar = Calendar::new(self.calendar.shift, pack(now));
        (self.soon, self.far, self.far_again, self.entries) = (Soon::default(), Vec::new(), 0, 0);
        self.queues.iter_mut().for_each(|queues| *queues = Default::default());
        for place in places {
            let item = self.pages.get(place);
            match item.standing {
                Standing::Absent | Standing::UnderWay => {}
                Standing::Ready => self.queue(place, item),
                Standing::Waiting | Standing::Soon | Standing::Far => self.enter(place, item, 0),
            }
        }
    }

    /// The legal deadline of an item's answer, else when it became due.
    fn stale(&self, item: &Item) -> u32 {
        stale_of(item, &self.freshness[usize::from(item.group)])
    }

    /// Signatures a second that the planned certificates need on average, when each answer is replaced
    /// at a point of [0.75 R, R].
    #[must_use]
    pub fn demand(&self) -> f64 {
        let groups = self.sizes.iter().zip(&self.freshness);
        groups.map(|(size, rules)| f64::from(*size) / (0.875 * rules.refresh().as_secs_f64())).sum()
    }

    /// The group of a planned certificate.
    #[must_use]
    pub fn group(&self, key: CertificateKey) -> Option<Group> {
        self.pages.find(key).map(|place| Group(self.pages.get(place).group))
    }

    /// Planned certificates.
    #[must_use]
    pub const fn planned(&self) -> usize {
        self.pages.planned()
    }

    /// Certificates taken and not finished.
    #[must_use]
    pub const fn under_way(&self) -> usize {
        self.under_way
    }

    /// Certificates that are due and not taken.
    #[must_use]
    pub fn due(&self) -> usize {
        self.queues.iter().flatten().map(Queue::counting).sum()
    }

    /// How many wait for a time in the calendar until `until`.
    #[must_use]
    pub fn due_until(&self, until: UnixTime) -> usize {
        let until = pack(until);
        let soon = self.soon.len();
        let buckets = self.calendar.buckets().take_while(|(end, _)| *end <= until);
        soon + buckets.map(|(_, bucket)| bucket.counting as usize).sum::<usize>()
    }

    /// Whether at some time to come more will have come due since `now` than `rate` a second carries.
    #[must_use]
    pub fn is_bunched(&self, now: UnixTime, rate: f64) -> bool {
        let now = pack(now);
        let mut demand = 0.0;
        self.calendar.buckets().any(|(end, bucket)| {
            demand += f64::from(bucket.counting);
            demand > rate * f64::from(end.saturating_sub(now)) + 1.0
        })
    }

    /// What is known of the time to come.
    #[must_use]
    pub fn outlook(&self, now: UnixTime) -> Outlook {
        let now = pack(now);
        let mut outlook = Outlook { planned: self.planned() as u64, ..Outlook::default() };
        let (mut stale, mut expires) = (u32::MAX, u32::MAX);
        for (_, bucket) in self.calendar.buckets() {
            stale = stale.min(bucket.stale);
            expires = expires.min(bucket.expires);
        }
        for queues in &self.queues {
            for (lane, queue) in queues.iter().enumerate() {
                let depth = &mut outlook.lanes[if lane == RETRIES { Lane::Refresh.index() } else { lane }];
                depth.due += queue.counting() as u64;
                for (_, bucket) in queue.buckets() {
                    let due = unpack(bucket.due);
                    depth.oldest = Some(depth.oldest.map_or(due, |oldest| oldest.min(due)));
                    if bucket.expires != u32::MAX {
                        stale = stale.min(bucket.stale);
                        expires = expires.min(bucket.expires);
                        outlook.stale += if bucket.stale <= now { u64::from(bucket.counting) } else { 0 };
                    }
                }
            }
        }
        outlook.stale_at = (stale != u32::MAX).then(|| unpack(stale));
        outlook.expires_at = (expires != u32::MAX).then(|| unpack(expires));
        outlook
    }
}

fn write(item: &mut Item, plan: &Plan) {
    item.group = plan.group.0;
    item.set_lane(plan.lane);
    item.due = pack(plan.due);
    (item.this_update, item.next_update) = plan
        .answer
        .map_or((0, 0), |(this_update, next_update)| (pack(this_update).max(1), pack(next_update)));
}

/// The queue in which an item waits when it is due.
fn queue_of(item: &Item) -> usize {
    if item.retry() { RETRIES } else { item.lane().index() }
}

fn stale_of(item: &Item, freshness: &Freshness) -> u32 {
    if item.this_update == 0 {
        return item.due;
    }
    pack(freshness.stale_at(unpack(item.this_update), unpack(item.next_update)))
}

fn expires(item: &Item) -> u32 {
    if item.this_update == 0 { u32::MAX } else { item.next_update }
}

/// What is taken first has the least rank.
fn rank_of(item: &Item, stale: u32, shift: u32) -> u32 {
    if item.haste() {
        0
    } else if item.this_update == 0 || item.retry() {
        item.due
    } else {
        stale >> shift
    }
}
