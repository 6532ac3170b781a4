use crate::shop::{SECOND, Shop};
use watershed::Source;
use watershed::testing::ScriptedQueue;
use watershed::testing::Simulation;
use watershed::{BoxError, fan_in};

#[test]
fn tiny() {
    for which in 0..6 {
        let simulation = Simulation::new(1).with_most_polls(2000);
        let shop =
            Shop::new(ScriptedQueue::new(simulation.world()).latency(SECOND / 10).with(0..7));
        let context = simulation.world().context("x");
        let world = simulation.world();
        let link = shop.link();
        let sources =
            if which % 2 == 0 { vec![link.source()] } else { vec![link.source(), link.source()] };
        let drain = fan_in(&context, sources, async |_, step| {
            shop.work(&step);
            world.pause().await;
            Ok::<_, BoxError>(())
        })
        .concurrency(2);
        let ended = match which / 2 {
            0 => simulation.run(drain),
            1 => simulation.run(drain.unordered()),
            _ => simulation.run(drain.ordered_by(|it: &u32| it % 3)),
        };
        println!("{which} {:?}", ended.map(|it| it.map(|r| r.handled())));
    }
}
