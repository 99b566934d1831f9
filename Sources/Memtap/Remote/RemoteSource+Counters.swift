import Mcdist

extension RemoteSource {
  func count(into counters: inout DistributionCounters) {
    let seen = counted
    counters.bytesReceived += seen.bytesReceived
    counters.requests += seen.requests
    counters.dropped += seen.dropped
    counters.pagesPushed += pagesPushed
    counters.transport = receiver?.transport.rawValue ?? finalTransport.0
    counters.transportReason = receiver?.transportReason ?? finalTransport.1
    counters.remoteFaultMicroseconds = faultTime.summary
  }

  var bytesReceived: UInt64 { counted.bytesReceived }

  /// By all its receivers.
  var counted: PageReceiver.Counters {
    var sum = earlierCounters
    guard let now = receiver?.counters else { return sum }
    sum.bytesReceived += now.bytesReceived
    sum.requests += now.requests
    sum.dropped += now.dropped
    return sum
  }
}

extension TransportMode {
  init(_ transport: PageTransport) {
    self =
      switch transport {
      case .auto: .auto
      case .unicast: .unicast
      case .multicast: .multicast
      }
  }
}
