//! Weekly hours and holidays, by the wall clock of one place.

use crate::clock::{Clock, Day, Holiday};
use jiff::civil::{Date, DateTime};
use servicetsunami_plugin::{Violation, violation};
use std::collections::BTreeSet;

/// How far the next opening is looked for, in days.
pub const DAYS_AHEAD_MAX: usize = 400;

/// The same hours on some days of the week.
pub struct Shift {
    days: Vec<Day>,
    from: Clock,
    to: Clock,
}

impl Shift {
    pub fn new(days: &[Day], from: Clock, to: Clock) -> Result<Self, Violation> {
        if from == Clock::END_OF_DAY {
            return Err(violation(
                "/from",
                "`24:00` is the end of a day: write `00:00` and the day after it",
            ));
        }
        if from == to {
            return Err(violation(
                "/to",
                "is the same as `from`: write `00:00` to `24:00` for the whole day",
            ));
        }
        Ok(Self {
            days: days.to_vec(),
            from,
            to,
        })
    }

    fn passes_midnight(&self) -> bool {
        self.to < self.from
    }

    /// Whether a minute of the day on which the shift begins is within it.
    fn holds(&self, time: Clock) -> bool {
        self.from <= time && (self.passes_midnight() || time < self.to)
    }

    /// The same of the day after.
    fn still_holds(&self, time: Clock) -> bool {
        self.passes_midnight() && time < self.to
    }
}

pub struct Calendar {
    shifts: Vec<Shift>,
    holidays: BTreeSet<Holiday>,
}

impl Calendar {
    pub fn new(shifts: Vec<Shift>, holidays: Vec<Holiday>) -> Self {
        Self {
            shifts,
            holidays: holidays.into_iter().collect(),
        }
    }

    pub fn is_open(&self, now: DateTime) -> bool {
        let (today, time) = (now.date(), Clock::of(now.time()));
        if self.is_holiday(today) {
            return false;
        }
        let mut since_yesterday = today
            .yesterday()
            .into_iter()
            .flat_map(|day| self.begin_on(day));
        self.begin_on(today).any(|shift| shift.holds(time))
            || since_yesterday.any(|shift| shift.still_holds(time))
    }

    pub fn is_holiday(&self, date: Date) -> bool {
        let day = Holiday::on(date);
        self.holidays.contains(&day) || self.holidays.contains(&day.every_year())
    }

    /// Where it is closed now.
    pub fn next_opening(&self, now: DateTime) -> Option<(Date, Clock)> {
        let today = now.date();
        let later = |shift: &&Shift| shift.from > Clock::of(now.time());
        let first = self.begin_on(today).filter(later).map(|s| s.from).min();
        if let Some(clock) = first {
            return Some((today, clock));
        }
        let mut days = today
            .series(jiff::ToSpan::days(1))
            .skip(1)
            .take(DAYS_AHEAD_MAX);
        days.find_map(|day| Some((day, self.begin_on(day).map(|s| s.from).min()?)))
    }

    /// The shifts that begin on a day: none on a holiday.
    fn begin_on(&self, date: Date) -> impl Iterator<Item = &Shift> {
        let day = Day::of(date);
        let is_holiday = self.is_holiday(date);
        self.shifts
            .iter()
            .filter(move |shift| !is_holiday && shift.days.contains(&day))
    }
}
