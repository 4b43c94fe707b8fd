//! One message for many subscribers: a slow one is disconnected and delays nobody.
use bytes::Bytes;
use plimsoll::BoxError;
use plimsoll::bounded::{ByteCap, Delivery, Fanout, FanoutCaps};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let caps = FanoutCaps { backlog: ByteCap::of::<512>(), ..FanoutCaps::default() };
    let prices = Fanout::new("prices", caps);
    let mut reader = prices.subscribe(Delivery::Every)?;
    let mut latest = prices.subscribe(Delivery::Latest)?;
    let mut slow = prices.subscribe(Delivery::Every)?;
    let mut read = 0;
    for price in 1..=10 {
        prices.publish(Bytes::from(format!("price {price}")))?;
        if let Some(Ok(_)) = reader.try_next() {
            read += 1;
        }
    }
    println!("reader: {read} messages");
    if let Some(Ok(message)) = latest.next().await {
        println!("latest: {}", String::from_utf8_lossy(&message));
    }
    if let Some(Err(reason)) = slow.next().await {
        println!("slow: disconnected, {reason}");
    }
    println!("subscribers: {}", prices.len());
    Ok(())
}
