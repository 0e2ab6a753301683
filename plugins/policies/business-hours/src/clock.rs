//! Days and times of the day, as settings write them.

use jiff::civil::{Date, Time, Weekday};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use std::{borrow::Cow, fmt};

/// Characters of what somebody wrote that a message repeats.
const SHOWN_CHARS_MAX: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Day {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

impl Day {
    pub fn of(date: Date) -> Self {
        match date.weekday() {
            Weekday::Monday => Self::Monday,
            Weekday::Tuesday => Self::Tuesday,
            Weekday::Wednesday => Self::Wednesday,
            Weekday::Thursday => Self::Thursday,
            Weekday::Friday => Self::Friday,
            Weekday::Saturday => Self::Saturday,
            Weekday::Sunday => Self::Sunday,
        }
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A time of the day, in whole minutes since its midnight; 24:00 is the end of the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Clock(u16);

impl Clock {
    pub const END_OF_DAY: Self = Self(24 * 60);

    pub fn of(time: Time) -> Self {
        let minutes = i32::from(time.hour()) * 60 + i32::from(time.minute());
        Self(u16::try_from(minutes).unwrap_or(0))
    }
}

impl TryFrom<String> for Clock {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let two_digits =
            |text: &str| match text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit()) {
                true => text.parse::<u16>().ok(),
                false => None,
            };
        let parts = text.split_once(':');
        let parts = parts.and_then(|(h, m)| Some((two_digits(h)?, two_digits(m)?)));
        match parts {
            Some((hour, minute)) if hour < 24 && minute < 60 => Ok(Self(hour * 60 + minute)),
            Some((24, 0)) => Ok(Self::END_OF_DAY),
            _ => Err(format!(
                "`{}` is no time of the day: write it as in `09:00`",
                shown(&text)
            )),
        }
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl JsonSchema for Clock {
    fn schema_name() -> Cow<'static, str> {
        "Clock".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$" })
    }
}

/// A day: of one year, or without a year of every one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Holiday {
    year: Option<i16>,
    month: i8,
    day: i8,
}

impl Holiday {
    pub fn on(date: Date) -> Self {
        Self {
            year: Some(date.year()),
            month: date.month(),
            day: date.day(),
        }
    }

    pub fn every_year(self) -> Self {
        Self { year: None, ..self }
    }
}

impl TryFrom<String> for Holiday {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let whole = match text.len() {
            10 => text.clone(),
            5 => format!("2000-{text}"), // a leap year
            _ => String::new(),
        };
        // The parser takes other ways of ISO 8601 to write a day as well.
        let dashed = [4, 7]
            .iter()
            .all(|at| whole.as_bytes().get(*at) == Some(&b'-'));
        let date = whole.parse::<Date>().ok().filter(|_| dashed);
        match date {
            Some(date) if text.len() == 5 => Ok(Self::on(date).every_year()),
            Some(date) => Ok(Self::on(date)),
            None => Err(format!(
                "`{}` is no day: write `2026-12-24`, or `12-25` for every year",
                shown(&text)
            )),
        }
    }
}

impl JsonSchema for Holiday {
    fn schema_name() -> Cow<'static, str> {
        "Holiday".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^([0-9]{4}-)?(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$",
            "description": "`2026-12-24`, or `12-25` for that day of every year.",
        })
    }
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}
