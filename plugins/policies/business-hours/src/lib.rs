//! Calls within weekly hours only.
//!
//! An instant is placed in the time zone, and its wall-clock time is held against the hours. So where clocks go back
//! the repeated hour counts both times, and where they go forward nothing has to be done.

mod calendar;
mod clock;

use calendar::{Calendar, Shift};
use clock::{Clock, Day, Holiday};
use jiff::{
    Timestamp,
    civil::DateTime,
    tz::{TimeZone, TimeZoneDatabase},
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use servicetsunami_plugin::{
    Calls, Decision, Effect, Policy, Roles, Violation, about, allow, deny, export_policy,
    policy_types::Request, violation,
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Of the IANA time zone database: `Europe/Berlin`.
    #[schemars(length(min = 1, max = 64))]
    time_zone: String,
    /// When calls may be made.
    #[schemars(length(min = 1, max = 32))]
    hours: Vec<Hours>,
    /// Days on which no hours begin, and that are closed from midnight to midnight.
    #[serde(default)]
    #[schemars(length(max = 400))]
    holidays: Vec<Holiday>,
    /// What becomes of a call outside of the hours.
    #[serde(default)]
    outside: Effect,
    /// With `outside: ask`: who may approve. One of these roles is enough; empty for whoever the tenant's rules name.
    #[serde(default)]
    roles: Roles,
    /// The calls that have to keep the hours; the others may be made at any time.
    #[serde(default)]
    calls: Calls,
}

/// The same hours on some days of the week.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Hours {
    #[schemars(length(min = 1, max = 7))]
    days: Vec<Day>,
    /// The first minute: `09:00`.
    from: Clock,
    /// The minute after the last: `17:30`, `24:00`. Where it is before `from`, it is of the next day.
    to: Clock,
}

struct Rule {
    zone: TimeZone,
    calendar: Calendar,
    outside: Effect,
    roles: Roles,
    calls: Calls,
}

pub fn policy() -> Policy {
    Policy::prepared(
        "business-hours",
        about!("Business hours", ["governance", "time"]),
        prepare,
        decide,
    )
    .example(|| json!({
        "time_zone": "Europe/Berlin",
        "hours": [{ "days": ["monday", "tuesday", "wednesday", "thursday", "friday"], "from": "09:00", "to": "17:30" }],
        "holidays": ["01-01", "05-01", "10-03", "12-25", "12-26", "2027-03-26", "2027-03-29"],
        "calls": { "risks": ["write", "destructive"] }
    }))
    .example(|| json!({
        "time_zone": "America/New_York",
        "hours": [
            { "days": ["monday", "tuesday", "wednesday", "thursday"], "from": "22:00", "to": "06:00" },
            { "days": ["saturday"], "from": "00:00", "to": "24:00" }
        ],
        "outside": "ask",
        "roles": ["admin"],
        "calls": { "actions": ["github.merge_pull_request"] }
    }))
}

fn prepare(settings: Settings) -> Result<Rule, Violation> {
    let zone = time_zone(&settings.time_zone)?;
    if settings.hours.is_empty() {
        return Err(violation(
            "/hours",
            "name at least one time; to stop the calls altogether, disable the skill",
        ));
    }
    let shifts = settings.hours.iter().enumerate().map(shift);
    Ok(Rule {
        zone,
        calendar: Calendar::new(shifts.collect::<Result<_, _>>()?, settings.holidays),
        outside: settings.outside,
        roles: settings.roles,
        calls: settings.calls,
    })
}

fn time_zone(name: &str) -> Result<TimeZone, Violation> {
    let database = TimeZoneDatabase::bundled();
    let zone = database.get(name).ok().filter(|zone| !zone.is_unknown());
    zone.ok_or_else(|| {
        let meant = database
            .available()
            .find(|zone| city(zone.as_str()).eq_ignore_ascii_case(&city(name).replace(' ', "_")));
        let meant = meant.map_or("Europe/Berlin".into(), |zone| zone.as_str().to_owned());
        let name: String = name.chars().take(64).collect();
        let message = format!(
            "`{name}` is no zone of the IANA time zone database: write one as in `{meant}`"
        );
        violation("/time_zone", message)
    })
}

/// `Berlin` of `Europe/Berlin`.
fn city(zone: &str) -> &str {
    zone.rsplit('/').next().unwrap_or(zone)
}

fn shift((index, hours): (usize, &Hours)) -> Result<Shift, Violation> {
    if hours.days.is_empty() {
        return Err(violation(
            format!("/hours/{index}/days"),
            "name at least one day",
        ));
    }
    Shift::new(&hours.days, hours.from, hours.to)
        .map_err(|wrong| violation(format!("/hours/{index}{}", wrong.pointer), wrong.message))
}

fn decide(request: &Request, rule: &Rule) -> Decision {
    if !rule.calls.include(request) {
        return allow();
    }
    let Some(now) = local(request.now, &rule.zone) else {
        return deny(format!(
            "whether it is within business hours cannot be said of the time {} ms",
            request.now
        ));
    };
    if rule.calendar.is_open(now) {
        return allow();
    }
    rule.outside
        .decision(rule.explain(request, now), &rule.roles)
}

fn local(now_ms: u64, zone: &TimeZone) -> Option<DateTime> {
    let now = Timestamp::from_millisecond(i64::try_from(now_ms).ok()?).ok()?;
    Some(zone.to_datetime(now))
}

impl Rule {
    fn explain(&self, request: &Request, now: DateTime) -> String {
        let call = format!("{}.{}", request.skill, request.action);
        let zone = self.zone.iana_name().unwrap_or("UTC");
        let holiday = match self.calendar.is_holiday(now.date()) {
            true => ", a holiday,",
            false => "",
        };
        let next = match self.calendar.next_opening(now) {
            Some((date, clock)) => {
                format!("they begin on {} {date} at {clock}", Day::of(date))
            }
            None => format!("none begin within {} days", calendar::DAYS_AHEAD_MAX),
        };
        let today = format!("{} {}", Day::of(now.date()), now.date());
        let time = Clock::of(now.time());
        format!(
            "`{call}` keeps business hours: it is {today}{holiday} {time} in {zone}, and {next}"
        )
    }
}

export_policy!(policy);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use servicetsunami_plugin::{
        Risk, ask,
        testing::{PolicyRequest, denied, readme_shows_examples, settings_are_sound},
    };

    /// A call that changes something, at an instant as RFC 3339 writes it.
    fn call(at: &str) -> PolicyRequest {
        let at: Timestamp = at.parse().expect("a timestamp");
        let ms = u64::try_from(at.as_millisecond()).expect("after 1970");
        PolicyRequest::new("slack", "send_message")
            .risk(Risk::Write)
            .now_ms(ms)
    }

    fn week(zone: &str, days: &[&str], from: &str, to: &str) -> Value {
        json!({ "time_zone": zone, "hours": [{ "days": days, "from": from, "to": to }] })
    }

    const WEEKDAYS: [&str; 5] = ["monday", "tuesday", "wednesday", "thursday", "friday"];
    const EVERY_DAY: [&str; 7] = [
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
    ];

    #[track_caller]
    fn table(settings: &Value, cases: &[(&str, bool)]) {
        for (at, open) in cases {
            let decision = call(at).decide(policy, settings.clone());
            assert_eq!(decision == allow(), *open, "{at}: {decision:?}");
        }
    }

    #[test]
    fn the_settings_are_sound_and_the_readme_shows_them() {
        settings_are_sound(policy);
        readme_shows_examples(policy);
    }

    #[test]
    fn the_first_minute_is_open_and_the_last_is_the_one_before_the_end() {
        // Berlin is an hour ahead of UTC in November. The 26th of 2026 is a Thursday.
        table(
            &week("Europe/Berlin", &WEEKDAYS, "09:00", "17:30"),
            &[
                ("2026-11-26T07:59:59.999Z", false),
                ("2026-11-26T08:00:00Z", true),
                ("2026-11-26T16:29:59.999Z", true),
                ("2026-11-26T16:30:00Z", false),
                ("2026-11-28T10:00:00Z", false),
                ("2026-11-29T10:00:00Z", false),
                ("2026-11-30T10:00:00Z", true),
            ],
        );
    }

    #[test]
    fn a_day_is_that_of_the_zone_and_midnight_belongs_to_the_day_that_begins() {
        // Auckland is 13 hours ahead of UTC in November, Honolulu 10 behind.
        table(
            &week("Pacific/Auckland", &["friday"], "00:00", "24:00"),
            &[
                ("2026-11-26T10:59:59.999Z", false),
                ("2026-11-26T11:00:00Z", true),
                ("2026-11-27T10:59:59.999Z", true),
                ("2026-11-27T11:00:00Z", false),
            ],
        );
        table(
            &week("Pacific/Honolulu", &["friday"], "00:00", "24:00"),
            &[
                ("2026-11-27T09:59:59Z", false),
                ("2026-11-27T10:00:00Z", true),
                ("2026-11-28T09:59:59Z", true),
            ],
        );
        // A zone that is not whole hours from UTC: Kathmandu, 5:45 ahead.
        table(
            &week("Asia/Kathmandu", &WEEKDAYS, "09:00", "17:00"),
            &[
                ("2026-11-26T03:14:59Z", false),
                ("2026-11-26T03:15:00Z", true),
            ],
        );
    }

    #[test]
    fn hours_follow_the_wall_clock_over_a_change_of_summer_time() {
        // The same wall-clock hours before and after the clocks change: Berlin on 29 March and 25 October 2026.
        table(
            &week("Europe/Berlin", &EVERY_DAY, "09:00", "17:00"),
            &[
                ("2026-03-28T07:59:59Z", false),
                ("2026-03-28T08:00:00Z", true),
                ("2026-03-29T06:59:59Z", false),
                ("2026-03-29T07:00:00Z", true),
                ("2026-03-29T14:59:59Z", true),
                ("2026-03-29T15:00:00Z", false),
                ("2026-10-25T07:59:59Z", false),
                ("2026-10-25T08:00:00Z", true),
            ],
        );
    }

    #[test]
    fn an_hour_that_does_not_exist_is_skipped_and_one_that_comes_twice_counts_twice() {
        // 29 March 2026: 01:59:59 is followed by 03:00. What begins at 02:30 begins at 03:00.
        table(
            &week("Europe/Berlin", &EVERY_DAY, "02:30", "04:00"),
            &[
                ("2026-03-29T00:59:59Z", false),
                ("2026-03-29T01:00:00Z", true),
                ("2026-03-29T02:00:00Z", false),
            ],
        );
        // What lies within the hour alone does not take place that day.
        table(
            &week("Europe/Berlin", &EVERY_DAY, "02:10", "02:50"),
            &[
                ("2026-03-29T00:59:59Z", false),
                ("2026-03-29T01:00:00Z", false),
                ("2026-03-29T01:30:00Z", false),
            ],
        );
        // 25 October 2026: 02:59:59 in summer time is followed by 02:00 in standard time.
        table(
            &week("Europe/Berlin", &EVERY_DAY, "02:15", "02:45"),
            &[
                ("2026-10-25T00:14:59Z", false),
                ("2026-10-25T00:15:00Z", true),
                ("2026-10-25T00:45:00Z", false),
                ("2026-10-25T01:14:59Z", false),
                ("2026-10-25T01:15:00Z", true),
                ("2026-10-25T01:45:00Z", false),
            ],
        );
        // Lord Howe moves by half an hour: on 5 April 2026 at 02:00, back to 01:30.
        table(
            &week("Australia/Lord_Howe", &EVERY_DAY, "01:30", "02:00"),
            &[
                ("2026-04-04T14:29:59Z", false),
                ("2026-04-04T14:30:00Z", true),
                ("2026-04-04T15:29:59Z", true),
                ("2026-04-04T15:30:00Z", false),
            ],
        );
    }

    #[test]
    fn rules_of_past_and_far_years_hold() {
        // Brazil gave up summer time in 2019.
        let hours = week("America/Sao_Paulo", &EVERY_DAY, "09:00", "10:00");
        table(
            &hours,
            &[
                ("2019-01-15T11:00:00Z", true),
                ("2020-01-15T11:00:00Z", false),
                ("2020-01-15T12:00:00Z", true),
            ],
        );
        // Berlin in 2400, by the rule that has no end.
        let hours = week("Europe/Berlin", &EVERY_DAY, "09:00", "10:00");
        table(
            &hours,
            &[
                ("2400-07-03T07:00:00Z", true),
                ("2400-01-03T07:00:00Z", false),
                ("2400-01-03T08:00:00Z", true),
            ],
        );
        // Samoa had no 30 December 2011.
        let hours = week("Pacific/Apia", &["friday"], "00:00", "24:00");
        table(
            &hours,
            &[
                ("2011-12-30T09:59:59Z", false),
                ("2011-12-30T10:00:00Z", false),
            ],
        );
    }

    #[test]
    fn hours_through_midnight_belong_to_the_day_on_which_they_begin() {
        table(
            &week("UTC", &["friday"], "22:00", "06:00"),
            &[
                ("2026-11-27T05:59:59Z", false),
                ("2026-11-27T21:59:59Z", false),
                ("2026-11-27T22:00:00Z", true),
                ("2026-11-28T00:00:00Z", true),
                ("2026-11-28T05:59:59Z", true),
                ("2026-11-28T06:00:00Z", false),
                ("2026-11-28T22:00:00Z", false),
            ],
        );
        table(
            &week("UTC", &["friday"], "22:00", "00:00"),
            &[
                ("2026-11-27T23:59:59Z", true),
                ("2026-11-28T00:00:00Z", false),
            ],
        );
    }

    #[test]
    fn a_holiday_is_closed_from_midnight_to_midnight_and_nothing_begins_on_it() {
        let mut settings = week("UTC", &EVERY_DAY, "22:00", "06:00");
        settings["holidays"] = json!(["2026-11-27", "12-25", "02-29"]);
        table(
            &settings,
            &[
                ("2026-11-26T23:59:59Z", true),
                ("2026-11-27T00:00:00Z", false),
                ("2026-11-27T23:00:00Z", false),
                ("2026-11-28T03:00:00Z", false),
                ("2026-11-28T22:00:00Z", true),
                ("2027-11-27T23:00:00Z", true),
                ("2026-12-25T23:00:00Z", false),
                ("2041-12-25T23:00:00Z", false),
                ("2028-02-29T23:00:00Z", false),
                ("2027-02-28T23:00:00Z", true),
            ],
        );
    }

    #[test]
    fn calls_that_are_not_chosen_may_be_made_at_any_time() {
        let mut settings = week("UTC", &["monday"], "09:00", "10:00");
        settings["calls"] =
            json!({ "risks": ["destructive"], "actions": ["slack.delete_message"] });
        let night = call("2026-11-28T03:00:00Z");
        assert_eq!(night.decide(policy, settings.clone()), allow());
        let deletion = PolicyRequest::new("slack", "delete_message")
            .risk(Risk::Destructive)
            .now_ms(night.into_request().now);
        denied(deletion.decide(policy, settings));
    }

    #[test]
    fn the_reason_says_when_the_hours_begin() {
        let mut settings = week("europe/berlin", &WEEKDAYS, "09:00", "17:30");
        settings["holidays"] = json!(["2026-11-30"]);
        let saturday = call("2026-11-28T13:05:30Z");
        assert_eq!(
            denied(saturday.decide(policy, settings.clone())),
            "`slack.send_message` keeps business hours: it is Saturday 2026-11-28 14:05 in Europe/Berlin, and they \
             begin on Tuesday 2026-12-01 at 09:00"
        );
        let holiday = call("2026-11-30T08:00:00Z");
        assert!(
            denied(holiday.decide(policy, settings.clone()))
                .contains("it is Monday 2026-11-30, a holiday, 09:00 in Europe/Berlin")
        );
        let early = call("2026-12-01T05:00:00Z");
        assert!(
            denied(early.decide(policy, settings.clone()))
                .ends_with("they begin on Tuesday 2026-12-01 at 09:00")
        );
        settings["outside"] = json!("ask");
        settings["roles"] = json!(["admin", "owner"]);
        let reason = "`slack.send_message` keeps business hours: it is Tuesday 2026-12-01 20:00 in Europe/Berlin, \
                      and they begin on Wednesday 2026-12-02 at 09:00";
        assert_eq!(
            call("2026-12-01T19:00:00Z").decide(policy, settings),
            ask(reason).roles(&["admin".into(), "owner".into()]).into()
        );
    }

    #[test]
    fn hours_that_never_begin_again_are_said_to() {
        let every_day: Vec<String> = (1..=12)
            .flat_map(|month| (1..=31).map(move |day| format!("{month:02}-{day:02}")))
            .filter(|day| Holiday::try_from(day.clone()).is_ok())
            .collect();
        let mut settings = week("UTC", &EVERY_DAY, "09:00", "17:00");
        settings["holidays"] = json!(every_day);
        let reason = denied(call("2026-11-28T13:00:00Z").decide(policy, settings));
        assert!(reason.ends_with("none begin within 400 days"), "{reason}");
    }

    #[test]
    fn settings_that_cannot_be_used_deny_and_say_what_to_mend() {
        let hours = |hours: Value| json!({ "time_zone": "UTC", "hours": hours });
        let at =
            |from: &str, to: &str| hours(json!([{ "days": ["monday"], "from": from, "to": to }]));
        let holiday = |day: &str| json!({ "time_zone": "UTC", "hours": [{ "days": ["monday"], "from": "09:00", "to": "10:00" }], "holidays": [day] });
        let cases = [
            (json!({}), "missing field `time_zone`"),
            (json!({ "time_zone": "UTC" }), "missing field `hours`"),
            (
                week("Mars/Base", &WEEKDAYS, "09:00", "10:00"),
                "/time_zone: `Mars/Base` is no zone of the IANA time zone database: write one as in `Europe/Berlin`",
            ),
            (
                week("madrid", &WEEKDAYS, "09:00", "10:00"),
                "write one as in `Europe/Madrid`",
            ),
            (
                week("New York", &WEEKDAYS, "09:00", "10:00"),
                "write one as in `America/New_York`",
            ),
            (
                week("+02:00", &WEEKDAYS, "09:00", "10:00"),
                "/time_zone: `+02:00` is no zone",
            ),
            (
                week("Etc/Unknown", &WEEKDAYS, "09:00", "10:00"),
                "/time_zone: `Etc/Unknown` is no zone",
            ),
            (
                week("", &WEEKDAYS, "09:00", "10:00"),
                "/time_zone: `` is no zone",
            ),
            (
                week("../../etc/passwd", &WEEKDAYS, "09:00", "10:00"),
                "/time_zone: ",
            ),
            (hours(json!([])), "/hours: name at least one time"),
            (
                hours(json!([{ "days": [], "from": "09:00", "to": "10:00" }])),
                "/hours/0/days: name at least one day",
            ),
            (
                hours(json!([{ "days": ["mon"], "from": "09:00", "to": "10:00" }])),
                "/hours/0/days/0: unknown variant `mon`, expected one of `monday`",
            ),
            (
                at("9am", "10:00"),
                "/hours/0/from: `9am` is no time of the day: write it as in `09:00`",
            ),
            (at("09:60", "10:00"), "/hours/0/from: `09:60` is no time"),
            (at("09:00", "24:01"), "/hours/0/to: `24:01` is no time"),
            (at("+9:00", "10:00"), "/hours/0/from: `+9:00` is no time"),
            (
                at("24:00", "10:00"),
                "/hours/0/from: `24:00` is the end of a day",
            ),
            (at("09:00", "09:00"), "/hours/0/to: is the same as `from`"),
            (
                holiday("2026-02-29"),
                "/holidays/0: `2026-02-29` is no day: write `2026-12-24`, or `12-25` for every year",
            ),
            (holiday("13-01"), "/holidays/0: `13-01` is no day"),
            (holiday("25.12."), "/holidays/0: `25.12.` is no day"),
        ];
        for (settings, complaint) in cases {
            // Also where the call is none that has to keep the hours.
            let mut other = settings.clone();
            other["calls"] = json!({ "skills": ["gmail"] });
            for settings in [settings, other] {
                let reason = denied(call("2026-11-30T09:30:00Z").decide(policy, settings.clone()));
                assert!(reason.contains(complaint), "{settings}: {reason}");
            }
        }
    }

    #[test]
    fn a_time_beyond_the_calendar_denies() {
        let settings = week("UTC", &EVERY_DAY, "00:00", "24:00");
        for now in [u64::MAX, i64::MAX as u64, 253_402_300_800_000] {
            let call = PolicyRequest::new("slack", "send_message").now_ms(now);
            let reason = denied(call.decide(policy, settings.clone()));
            assert!(reason.contains(&format!("{now} ms")), "{reason}");
        }
        table(&settings, &[("1970-01-01T00:00:00Z", true)]);
    }
}
