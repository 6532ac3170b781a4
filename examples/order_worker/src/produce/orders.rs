//! The orders of a source: copies of the records of earthquakes.

use serde::Deserialize;

use crate::order::Order;

/// An order to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Produced {
    pub(crate) id: String,
    pub(crate) body: Vec<u8>,
    /// It cannot be read, or is not valid.
    pub(crate) is_poison: bool,
}

/// The earthquakes, by feed.
macro_rules! earthquakes {
    ($($feed:literal)*) => {
        [$(($feed, include_str!(
            concat!("../../../high_volume_fan_in/earthquakes/", $feed, ".jsonl")
        ))),*]
    };
}

const EARTHQUAKES: [(&str, &str); 12] = earthquakes!(
    "ak" "ci" "hv" "mb" "nc" "nm" "nn" "pr" "se" "us" "uu" "uw"
);

/// What an order takes from the record of an earthquake.
#[derive(Deserialize)]
struct Earthquake {
    id: String,
    mag: Option<f64>,
}

/// So many orders, whose ids are unique by `prefix`, the source and their number. Poison is spread
/// evenly among them.
pub(super) fn orders(source: &str, prefix: &str, count: u32, poison: u32) -> Vec<Produced> {
    let records = EARTHQUAKES.iter().flat_map(|(feed, lines)| {
        let earthquakes = lines.lines().filter_map(|line| serde_json::from_str(line).ok());
        earthquakes.map(|earthquake: Earthquake| (*feed, earthquake)).collect::<Vec<_>>()
    });
    let records: Vec<_> = records.collect();
    // From all feeds, not the first one's first.
    let stride = records.len() / 12 + 1;
    let of = |number: u32| {
        let (feed, earthquake) = &records[(number as usize * stride) % records.len()];
        Order {
            id: format!("{prefix}-{source}-{number}"),
            feed: (*feed).to_owned(),
            earthquake: earthquake.id.clone(),
            magnitude: earthquake.mag,
            pieces: i64::from(number % 9) + 1,
        }
    };
    let is_poison = |number| {
        let up_to = |number: u32| u64::from(number) * u64::from(poison) / u64::from(count);
        up_to(number + 1) > up_to(number)
    };
    let mut poisoned = 0;
    let order = |number| {
        let (order, is_poison) = (of(number), is_poison(number));
        let id = order.id.clone();
        let body = if is_poison {
            poisoned += 1;
            spoilt(order, poisoned)
        } else {
            written(&order)
        };
        Produced { id, body, is_poison }
    };
    (0..count).map(order).collect()
}

fn written(order: &Order) -> Vec<u8> {
    // Texts and numbers: there is nothing that could not be written.
    serde_json::to_vec(order).unwrap_or_default()
}

/// One that cannot be carried out, in one of three ways.
fn spoilt(order: Order, number: u32) -> Vec<u8> {
    match number % 3 {
        0 => {
            let mut body = written(&order);
            body.truncate(body.len() / 2);
            body
        }
        1 => written(&Order { pieces: 0, ..order }),
        _ => written(&Order { feed: "atlantis".to_owned(), ..order }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn so_many_are_poison_and_no_two_are_the_same() {
        for (count, poison) in [(1, 0), (1, 1), (10, 3), (5_000, 7), (90, 90)] {
            let orders = orders("kafka", "test", count, poison);
            let bodies: HashSet<_> = orders.iter().map(|order| &order.body).collect();
            assert_eq!(bodies.len(), count as usize);
            let good = |order: &&Produced| {
                let read = Order::decode(&order.body);
                read.is_ok_and(|read| read.validate().is_ok() && read.id == order.id)
            };
            assert_eq!(orders.iter().filter(good).count(), (count - poison) as usize);
            let poisoned = orders.iter().filter(|order| order.is_poison).count();
            assert_eq!(poisoned, poison as usize);
        }
    }
}
