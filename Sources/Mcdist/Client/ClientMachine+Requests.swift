import GuestMemory

/// What to ask for, and when again.
extension ClientMachine {
  /// The request that is due at `now`; nil: none before `nextDeadline`. Call until nil. `lacking`: of a page of
  /// which some has come, what lacks.
  public mutating func nextRequest(
    now: UInt64, lacking: (PageIndex) -> UInt16 = { _ in PageParts.all }
  ) -> PageRequest? {
    expire(now)
    var runs: [PageRequest.Run] = []
    while runs.count < PageRequest.runsMax, let next = demands.popFirst() {
      guard states[Int(next)] == .demanded else { continue }
      add(Int(next), .demand, isRetry: false, to: &runs, now: now)
    }
    while runs.count < PageRequest.runsMax, let next = demandRetries.popFirst() {
      if states[Int(next)] == .demanded {
        add(Int(next), .demand, isRetry: true, parts: lacking(Int(next)), to: &runs, now: now)
      }
    }
    window.turn(&choice, echoTime, now: now)
    while runs.count < PageRequest.runsMax, window.hasRoom, let next = bulkRetries.popFirst() {
      guard let urgency = urgency(Int(next)), urgency != .demand else { continue }
      add(Int(next), urgency, isRetry: true, parts: lacking(Int(next)), to: &runs, now: now)
    }
    if runs.count < PageRequest.runsMax { addPrefetches(to: &runs, lacking, now: now) }
    if runs.count < PageRequest.runsMax { addPushes(to: &runs, lacking, now: now) }
    if runs.isEmpty { return nil }
    if waitingSince == nil { waitingSince = now }
    return request(runs, now: now)
  }

  /// A request of no page. It is not sent again: whatever is asked for later does the same.
  public mutating func greeting(now: UInt64) -> PageRequest { request([], now: now) }

  private mutating func request(_ runs: [PageRequest.Run], now: UInt64) -> PageRequest {
    sequence &+= 1
    let rate = received.bytesPerSecond(now: now)
    return PageRequest(
      client: client, sequence: sequence, receiveRate: received.isKnown ? UInt32(min(max(rate, 1), 4e9)) : 0,
      roundTrip: UInt32(min(demandTime.smoothed / 1000, 1e6)), position: position(now: now),
      loss: UInt16(min(choice.loss, 0.99) * 65536),
      wantsUnicast: choice.wantsUnicast(now: now), isWarm: configuration.isWarm,
      clientTime: now, runs: runs)
  }

  /// After a silence what has not come is not on its way.
  private func position(now: UInt64) -> UInt32 {
    now < heardAt + max(echoTime.timeout(level: 0, configuration), 2 * configuration.retryMin)
      ? choice.position : 0
  }

  /// When `nextRequest` may have something, or the origin counts as silent; nil: only after a call.
  public func nextDeadline(now: UInt64) -> UInt64? {
    if !demands.isEmpty || !demandRetries.isEmpty || (!bulkRetries.isEmpty && window.hasRoom) { return now }
    var deadline: UInt64?
    func consider(_ time: UInt64) { deadline = min(deadline ?? time, time) }
    for index in waiting.indices {
      if let first = waiting[index].first { consider(due(first, index)) }
    }
    if !prefetches.isEmpty && canPrefetch { consider(now) }
    if canPush {
      let wanted = Double(Self.pushBatch * Page.bytes)
      let since = pushFilledAt ?? now
      let missing = max(0, wanted - pushTokens) / configuration.pushRate * 1e9
      consider(max(now, since + UInt64(missing)))
    }
    if hasOutstanding, let waitingSince { consider(max(waitingSince, heardAt) + configuration.silence) }
    return deadline
  }

  /// Pages asked for at once.
  static let prefetchBatch = 128
  static let pushBatch = 64

  private var canPrefetch: Bool {
    guard window.hasRoom && bulkRetries.isEmpty else { return false }
    return outstandingPrefetches + Self.prefetchBatch <= configuration.prefetchOutstandingMax
      || outstandingPrefetches == 0
  }

  private var canPush: Bool {
    isPushing && missingCount > 0 && window.hasRoom && outstandingDemands == 0 && pushCursor < pageCount
      && outstandingPushes + Self.pushBatch <= configuration.pushOutstandingMax
  }

  private mutating func addPrefetches(
    to runs: inout [PageRequest.Run], _ lacking: (PageIndex) -> UInt16, now: UInt64
  ) {
    guard canPrefetch else { return }
    while runs.count < PageRequest.runsMax, outstandingPrefetches < configuration.prefetchOutstandingMax,
      window.hasRoom, let range = prefetches.first
    {
      var page = range.lowerBound
      while page < range.upperBound, runs.count < PageRequest.runsMax,
        outstandingPrefetches < configuration.prefetchOutstandingMax, window.hasRoom
      {
        if states[page] == .missing {
          states[page] = .prefetched
          outstandingPrefetches += 1
          add(page, .prefetch, isRetry: false, parts: lacking(page), to: &runs, now: now)
        }
        page += 1
      }
      if page == range.upperBound {
        _ = prefetches.popFirst()
      } else {
        prefetches.replaceFirst(page..<range.upperBound)
      }
    }
  }

  /// In ascending order, so that all clients ask for the same pages at about the same time.
  private mutating func addPushes(
    to runs: inout [PageRequest.Run], _ lacking: (PageIndex) -> UInt16, now: UInt64
  ) {
    guard canPush else { return }
    let batch = Double(Self.pushBatch * Page.bytes)
    pushTokens = min(
      4 * batch, pushTokens + Double(now - (pushFilledAt ?? now)) / 1e9 * configuration.pushRate)
    if pushFilledAt == nil { pushTokens = batch }
    pushFilledAt = now
    guard pushTokens >= batch else { return }
    var asked = 0
    while asked < Self.pushBatch, runs.count < PageRequest.runsMax, pushCursor < pageCount {
      if states[pushCursor] == .missing {
        states[pushCursor] = .pushed
        outstandingPushes += 1
        add(pushCursor, .push, isRetry: false, parts: lacking(pushCursor), to: &runs, now: now)
        asked += 1
      }
      pushCursor += 1
    }
    pushTokens -= Double(asked * Page.bytes)
  }

  /// Puts a page into the request and among those that are waited for.
  private mutating func add(
    _ page: PageIndex, _ urgency: PageRequest.Urgency, isRetry: Bool, parts: UInt16 = PageParts.all,
    to runs: inout [PageRequest.Run], now: UInt64
  ) {
    let isRetry = isRetry || parts != PageParts.all  // others had asked for it, and some of it was lost
    let stamp = max(1, UInt32(truncatingIfNeeded: now / 1000))
    stamps[page] = stamp
    let level = min(Int(levels[page]), Self.levels - 1)
    waiting[(urgency == .demand ? 0 : Self.levels) + level].append(
      Outstanding(page: UInt32(page), stamp: stamp, sentAt: now))
    if urgency != .demand { window.asked() }
    counters.requests += 1
    if isRetry { counters.retries += 1 }
    if let last = runs.last, Int(last.first) + Int(last.count) == page, last.urgency == urgency,
      last.isRetry == isRetry, last.parts == PageParts.all, parts == PageParts.all, last.count < .max
    {
      runs[runs.count - 1].count += 1
    } else {
      runs.append(.init(first: UInt32(page), count: 1, urgency: urgency, isRetry: isRetry, parts: parts))
    }
  }

  private func urgency(_ page: PageIndex) -> PageRequest.Urgency? {
    switch states[page] {
    case .demanded: .demand
    case .prefetched: .prefetch
    case .pushed: .push
    case .missing, .present: nil
    }
  }

  /// When the request counts as lost: up to a quarter later by chance, so that clients do not ask in step.
  private func due(_ request: Outstanding, _ index: Int) -> UInt64 {
    let level = index % Self.levels
    var chance = SplitMix(state: random.state ^ UInt64(request.page))
    if index < Self.levels {
      let timeout = demandTime.timeout(level: level, configuration)
      return request.sentAt + timeout + chance.next() % (timeout / 4 + 1)
    }
    if level == 0 && isPassedOver(request) { return bulkAnswered }
    let timeout = max(echoTime.timeout(level: level, configuration), 5 * configuration.retryMin)
    // The first time it may be queued behind what others asked for, for as long as anything comes; a repair is not.
    let isQueued = level == 0
    let silence = (isQueued ? max(request.sentAt, heardAt) : request.sentAt) + timeout
    let patience = window.isNearlyDone ? 25 * configuration.retryMin : configuration.retryMax
    return min(silence, request.sentAt + patience) + chance.next() % (timeout / 4 + 1)
  }

  /// But for demands, a server answers in the order of requests: a later one has been answered. Where others had asked
  /// for the later one before, this is wrong, and the server passes over the retry. Repairs are sent before others.
  private func isPassedOver(_ request: Outstanding) -> Bool {
    (request.sentAt / 1000, Int(request.page)) < (bulkAnswered / 1000, bulkAnsweredPage)
  }

  /// Takes in what came and what is due again.
  private mutating func expire(_ now: UInt64) {
    for index in waiting.indices {
      while let first = waiting[index].first {
        let page = Int(first.page)
        let isCurrent = urgency(page) != nil && stamps[page] == first.stamp
        if isCurrent && due(first, index) > now { break }
        _ = waiting[index].popFirst()
        guard isCurrent else { continue }
        choice.timedOut(sentAt: first.sentAt, now: now)
        levels[page] = min(levels[page] + 1, UInt8(Self.levels - 1))
        stamps[page] = 0
        if states[page] == .demanded {
          demandRetries.append(first.page)
        } else {
          window.lost()
          bulkRetries.append(first.page)
        }
      }
    }
  }
}
