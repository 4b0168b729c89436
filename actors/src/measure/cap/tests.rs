use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    measure::{Dimensions, RedScratch, RedSettings, RedState, RedStats},
    span::{SpanBytes, SpanId, SpanKind, SpanView, StatusCode, TraceId},
};

type Sums = BTreeMap<(String, String, Vec<String>, bool), u64>;

struct World {
    settings: Arc<RedSettings>,
    state: RedState,
    at: u64,
}

impl World {
    fn new(max_series: usize) -> Self {
        Self::with(RedSettings { max_series, ..RedSettings::default() })
    }

    fn with(settings: RedSettings) -> Self {
        let settings = Arc::new(settings);
        Self { state: RedState::new(Arc::clone(&settings)), settings, at: 0 }
    }

    fn see(&mut self, service: &str, name: &str) {
        self.see_as(service, name, StatusCode::Unset, &[]);
    }

    /// Counts a span with these attributes.
    fn see_as(&mut self, service: &str, name: &str, status: StatusCode, attributes: &[(&str, &str)]) {
        let span = span_with(attributes);
        let mut scratch = RedScratch::new(Arc::clone(&self.settings));
        scratch.observe(&SpanView {
            service,
            name,
            kind: SpanKind::Server,
            status,
            start_unix_nano: 0,
            end_unix_nano: 1,
            trace_id: TraceId::from_int(1),
            span_id: SpanId::from_int(1),
            bytes: SpanBytes { resource_spans: &[], span: &span },
        });
        self.state.merge(self.at, &scratch.take(), Duration::from_secs(self.at));
        self.at += 1;
    }

    /// Names and whether they stand for many, with their spans.
    fn names(&self, service: &str) -> BTreeMap<(String, bool), u64> {
        let all = self.sums().into_iter().filter(|((of, ..), _)| of == service);
        all.map(|((_, name, _, overflow), spans)| ((name, overflow), spans)).collect()
    }

    fn sums(&self) -> Sums {
        let snapshot = self.state.snapshot();
        let dimensions = self.settings.dimensions.len();
        let mut sums = Sums::new();
        for series in &snapshot.series {
            let key = series.key();
            let values = (0..dimensions).map(|number| key.dimensions.get(number).to_owned()).collect();
            let key = (key.service.to_owned(), key.name.to_owned(), values, key.overflow);
            *sums.entry(key).or_default() += series.counts.count;
        }
        sums
    }

    fn overflow(&self) -> u64 {
        self.state.snapshot().overflow.map_or(0, |counts| counts.count)
    }
}

/// A span's bytes with nothing but texts as attributes.
fn span_with(attributes: &[(&str, &str)]) -> Vec<u8> {
    use opentelemetry_proto::tonic::{
        common::v1::{AnyValue, KeyValue, any_value::Value},
        trace::v1::Span,
    };
    use prost::Message as _;
    let attribute = |(key, value): &(&str, &str)| KeyValue {
        key: (*key).to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue((*value).to_owned())) }),
        ..KeyValue::default()
    };
    Span { attributes: attributes.iter().map(attribute).collect(), ..Span::default() }.encode_to_vec()
}

#[test]
fn new_names_of_a_service_that_takes_most_of_the_room_fold_and_its_old_ones_go_on() {
    let mut world = World::new(100);
    world.see("small", "pay");
    for id in 0..1_000 {
        world.see("big", &format!("GET /user/{id}"));
    }
    // 90 places, of which one is taken: 80 are less than 8 × 9 and one more, 79 are.
    let before = world.names("big");
    let own = before.keys().filter(|(_, overflow)| !overflow).count();
    assert!((72..=80).contains(&own), "{own}");
    assert_eq!(before[&(OTHER.to_owned(), true)], 1_000 - own as u64, "it began at 0");
    world.see("big", "GET /user/0");
    world.see("big", "GET /user/999");
    let after = world.names("big");
    assert_eq!(after[&("GET /user/0".to_owned(), false)], 2);
    assert_eq!(after[&(OTHER.to_owned(), true)], before[&(OTHER.to_owned(), true)] + 1);
    // Others still have room.
    world.see("small", "refund");
    world.see("new", "hello");
    assert_eq!(world.names("small").len(), 2);
    assert_eq!(world.names("new"), BTreeMap::from([(("hello".to_owned(), false), 1)]));
    assert_eq!(world.overflow(), 0);
}

#[test]
fn a_known_name_gets_a_series_for_its_first_error_though_new_names_fold() {
    let mut world = World::new(100);
    for id in 0..200 {
        world.see("big", &format!("GET /user/{id}"));
    }
    let series = world.state.snapshot().series.len();
    world.see_as("big", "GET /user/0", StatusCode::Error, &[]);
    let snapshot = world.state.snapshot();
    assert_eq!(snapshot.series.len(), series + 1);
    let error = snapshot.series.iter().find(|series| series.status == StatusCode::Error).unwrap();
    assert_eq!((&*error.name, error.overflow), ("GET /user/0", false));
}

#[test]
fn of_several_labels_only_the_one_with_most_values_folds() {
    let dimensions = Dimensions::new(&["user.id".to_owned(), "route".to_owned()]).unwrap();
    let mut world = World::with(RedSettings { max_series: 100, dimensions, ..RedSettings::default() });
    for id in 0..300 {
        let (user, route) = (format!("user {id}"), ["/pay", "/sell"][id % 2]);
        world.see_as("shop", "GET", StatusCode::Unset, &[("user.id", &user), ("route", route)]);
    }
    let folded: Vec<_> = world.sums().into_iter().filter(|((.., overflow), _)| *overflow).collect();
    let values: Vec<_> =
        folded.iter().map(|((_, name, values, _), _)| (name.as_str(), values.clone())).collect();
    let of = |route: &str| ("GET", vec![OTHER.to_owned(), route.to_owned()]);
    assert_eq!(values, [of("/pay"), of("/sell")]);
    assert_eq!(world.sums().values().sum::<u64>(), 300);
    let (offenders, turned_away) = world.state.cap.offenders();
    assert_eq!((offenders.len(), &*offenders[0].0, offenders[0].1.number(), turned_away), (1, "shop", 1, 0));
    assert!((180..=420).contains(&offenders[0].2), "about 300: {}", offenders[0].2);
}

#[test]
fn each_folded_label_is_shown_with_the_spans_that_are_folded_for_it() {
    let dimensions = Dimensions::new(&["user.id".to_owned()]).unwrap();
    let mut world = World::with(RedSettings { max_series: 100, dimensions, ..RedSettings::default() });
    for id in 0..200 {
        world.see_as("shop", &format!("GET /{id}"), StatusCode::Unset, &[("user.id", "0")]);
    }
    let names_folded = world.state.snapshot().totals.folded;
    for id in 0..200 {
        world.see_as("shop", "GET /0", StatusCode::Unset, &[("user.id", &id.to_string())]);
    }
    let snapshot = world.state.snapshot();
    let (foldings, turned_away) = world.state.cap.offenders();
    let stats = RedStats::of(&snapshot, world.state.cap.services(), foldings, turned_away);
    let shown: Vec<_> = stats.offenders.iter().map(|it| (it.label.as_str(), it.folded_spans)).collect();
    let users_folded = snapshot.totals.folded - names_folded;
    assert_eq!(shown, [("user_id", users_folded), ("span_name", names_folded)]);
}

#[test]
fn half_of_the_folded_places_are_for_series_of_which_everything_is_folded() {
    let dimensions = Dimensions::new(&["route".to_owned()]).unwrap();
    let mut world = World::with(RedSettings { max_series: 100, dimensions, ..RedSettings::default() });
    let route = |id: usize| format!("/{id}");
    for id in 0..20 {
        world.see_as("shop", "GET", StatusCode::Unset, &[("route", &route(id))]);
    }
    // Names are more than routes, so that they fold, first beside route 0.
    for id in 0..100 {
        world.see_as("shop", &format!("GET {id}"), StatusCode::Unset, &[("route", &route(0))]);
    }
    for id in 0..20 {
        world.see_as("shop", "POST", StatusCode::Unset, &[("route", &route(id))]);
    }
    let folded = world.sums().into_iter().filter(|((.., overflow), _)| *overflow);
    let routes: Vec<_> = folded.map(|((_, name, values, _), _)| (name, values[0].clone())).collect();
    let of = |route: &str| (OTHER.to_owned(), route.to_owned());
    assert_eq!(routes, ["/0", "/1", "/2", "/3", "/4", OTHER].map(of));
    assert_eq!(world.overflow(), 0);
}

#[test]
fn services_that_are_too_many_are_counted_in_the_overflow_series_and_leave_room_for_names() {
    let mut world = World::new(100);
    for id in 0..1_000 {
        world.see(&format!("service {id}"), "run");
    }
    assert_eq!((world.state.snapshot().series.len(), world.overflow()), (45, 955));
    world.see("service 3", "another name");
    assert_eq!(world.names("service 3").len(), 2, "a service that is there has room");
    assert!((600..=1_400).contains(&world.state.cap.offenders().1));
}

#[test]
fn new_services_leave_some_places_to_those_that_are_there() {
    let mut world = World::new(200);
    for id in 0..80 {
        world.see("big", &format!("name {id}"));
        world.see("shop", &format!("name {}", id / 2));
    }
    for id in 0..1_000 {
        world.see(&format!("service {id}"), "run");
    }
    // 180 places, of which a twentieth is kept.
    assert_eq!((world.state.snapshot().series.len(), world.overflow()), (171, 949));
    world.see("shop", "refund");
    assert_eq!(world.names("shop")[&("refund".to_owned(), false)], 1);
}

#[test]
fn a_service_named_like_what_stands_for_many_is_not_mixed_up_with_it() {
    let mut world = World::new(20);
    world.see("s", OTHER);
    for id in 0..100 {
        world.see("s", &format!("name {id}"));
    }
    world.see("s", OTHER);
    assert_eq!(world.names("s")[&(OTHER.to_owned(), false)], 2);
}

#[test]
fn one_place_or_two_are_enough_for_the_accounts_to_hold() {
    for max_series in 1..=3 {
        let mut world = World::new(max_series);
        for id in 0..20 {
            world.see(["a", "b"][id % 2], &format!("name {id}"));
        }
        let sum = world.sums().values().sum::<u64>() + world.overflow();
        assert_eq!(sum, 20, "{max_series}");
        assert!(world.state.snapshot().series.len() <= max_series);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whoever chooses services, names, statuses and dimensions.
    #[test]
    fn the_cap_holds_no_series_goes_back_and_every_span_counts_once(
        spans in prop::collection::vec((0u16..60, 0u16..60, 0i32..3, 0u16..60), 1..300),
        max_series in 1usize..60,
        with_dimension in any::<bool>(),
    ) {
        let names = if with_dimension { vec!["d".to_owned()] } else { vec![] };
        let dimensions = Dimensions::new(&names).unwrap();
        let mut world = World::with(RedSettings { max_series, dimensions, ..RedSettings::default() });
        let mut before = Sums::new();
        let mut folded = 0;
        for (number, (service, name, status, value)) in spans.into_iter().enumerate() {
            let (service, name, value) = (format!("s{}", service / 10), format!("n{name}"), format!("d{value}"));
            let status = StatusCode::from_wire(status);
            world.see_as(&service, &name, status, &[("d", &value)]);
            let snapshot = world.state.snapshot();
            prop_assert!(snapshot.series.len() <= max_series);
            let now = world.sums();
            for (key, spans) in &before {
                prop_assert!(now.get(key).is_some_and(|now| now >= spans), "{key:?} goes back");
            }
            let sum = now.values().sum::<u64>() + world.overflow();
            prop_assert_eq!(sum, number as u64 + 1);
            let stand_for_many = now.iter().filter(|((.., overflow), _)| *overflow).map(|(_, spans)| spans);
            prop_assert_eq!(stand_for_many.sum::<u64>() + world.overflow(), snapshot.totals.folded);
            // Where it was folded, it was for want of room: nothing folds while half of the places are free.
            if snapshot.totals.folded > folded {
                prop_assert!(now.len() + 1 >= max_series / 3, "{} of {max_series}", now.len());
            }
            folded = snapshot.totals.folded;
            before = now;
        }
    }
}
