//! Any source among those that settle: one without a transport has tickets for nothing.

use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::{Delivery, DeliveryOf, Gate, Hold, Polled, Profile, Receipt, Source};
use crate::settlement::Ticket;

pin_project! {
    pub(super) struct Ticketed<S> {
        #[pin]
        source: S,
    }
}

impl<S> Ticketed<S> {
    pub(super) fn new(source: S) -> Self {
        Self { source }
    }
}

fn ticketed<M, R: Receipt>(delivery: Delivery<M, R>) -> Delivery<M, Ticket> {
    Delivery { body: delivery.body, receipt: delivery.receipt.into_ticket() }
}

impl<S: Source> Source for Ticketed<S> {
    type Message = S::Message;
    type Receipt = Ticket;

    fn poll_delivery(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<Self> {
        let polled = self.project().source.poll_delivery(cx);
        polled.map(|item| item.map(|delivery| delivery.map(ticketed)))
    }

    fn poll_gate(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Gate> {
        self.project().source.poll_gate(cx)
    }

    fn take_held(self: Pin<&mut Self>) -> Option<DeliveryOf<Self>> {
        self.project().source.take_held().map(ticketed)
    }

    fn give_out(self: Pin<&mut Self>) -> bool {
        self.project().source.give_out()
    }

    fn hold(self: Pin<&mut Self>, hold: Hold) {
        self.project().source.hold(hold);
    }

    fn is_paused(&self) -> bool {
        self.source.is_paused()
    }

    fn holds(&self) -> bool {
        self.source.holds()
    }

    fn is_exhausted(&self) -> bool {
        self.source.is_exhausted()
    }

    fn profile(&self) -> Profile {
        self.source.profile()
    }
}
