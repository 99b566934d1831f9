import Glibc
import GuestMemory
import LinuxSystem
import Synchronization

/// VMs come, are renamed, and go.
extension Pager {
  package func expect(vm: String, token: String, ramBytes: UInt64) throws(MemtapError) {
    func refuse(_ code: MemtapError.Code, _ cause: String) -> MemtapError {
      MemtapError(code, operation: "expect", subject: vm, cause: cause)
    }
    guard isFileName(vm) else {
      throw refuse(.failed, "a name has letters, digits and . _ - only, at most 63")
    }
    guard token.utf8.count == 64, token.utf8.allSatisfy({ isHexadecimal($0) }) else {
      throw refuse(.failed, "a token has 64 lower-case hexadecimal digits")
    }
    // State and bookkeeping are counted in 32-bit page numbers.
    guard ramBytes > 0, ramBytes % UInt64(Page.bytes) == 0, ramBytes <= 16 << 40 else {
      throw refuse(.failed, "\(ramBytes) bytes are no possible size of RAM")
    }
    let region = Region(
      name: vm, token: token, pageCount: Page.count(ofBytes: ramBytes),
      thread: thread(forToken: token))
    var replaced: String?
    let conflict: MemtapError? = directory.withLock {
      if let known = $0.regions[vm] {
        if known.token == token { return nil }
        if known.shim != nil || $0.awaited[known.token] != nil {
          return refuse(.state, "another VM of that name is running")
        }
        $0.byToken[known.token] = nil
        replaced = known.token
      } else if $0.byToken[token] != nil {
        return refuse(.state, "the token is another VM's")
      }
      $0.regions[vm] = region
      $0.byToken[token] = region
      return nil
    }
    if let conflict { throw conflict }
    guard directory.withLock({ $0.regions[vm] === region }) else { return }  // known already
    if let replaced { VMManifest.remove(token: replaced, in: paths.vms) }
    try writeManifest(of: region, "expect")
  }

  package func waitForShim(vm: String, timeoutMilliseconds: Int) throws(MemtapError) {
    let deadline = monotonicNanoseconds() + UInt64(max(0, timeoutMilliseconds)) * 1_000_000
    while true {
      let seen = arrivals.count
      if try region(vm, "waitForShim").shim != nil { return }
      guard arrivals.wait(after: seen, until: deadline) else {
        throw MemtapError(
          .state, operation: "waitForShim", subject: vm,
          cause: "QEMU's RAM shim has not connected in \(timeoutMilliseconds) ms")
      }
    }
  }

  package func rename(vm: String, to name: String) throws(MemtapError) {
    func refuse(_ code: MemtapError.Code, _ cause: String) -> MemtapError {
      MemtapError(code, operation: "rename", subject: vm, cause: cause)
    }
    guard isFileName(name) else { throw refuse(.failed, "\(name) is no name") }
    let outcome: Result<Region, MemtapError> = directory.withLock {
      guard let region = $0.regions[vm] else {
        // Repeated after a success.
        if vm != name, let region = $0.regions[name] { return .success(region) }
        return .failure(refuse(.notFound, "the pager knows no VM of that name"))
      }
      if vm == name { return .success(region) }
      guard $0.regions[name] == nil else { return .failure(refuse(.state, "\(name) is taken")) }
      $0.regions[vm] = nil
      $0.regions[name] = region
      region.shared.withLock { $0.name = name }
      return .success(region)
    }
    try writeManifest(of: try outcome.get(), "rename")
  }

  package func forget(vm: String) throws(MemtapError) {
    let found: Region? = directory.withLock {
      guard let region = $0.regions.removeValue(forKey: vm) else { return nil }
      region.shared.withLock { $0.isForgotten = true }
      if region.shim == nil {
        $0.byToken[region.token] = nil
        $0.awaited[region.token] = nil
      }
      return region
    }
    guard let region = found else { return }
    // A QEMU that still runs is served until it ends: a parent's writes must save pre-images to the last.
    if region.shim == nil {
      VMManifest.remove(token: region.token, in: paths.vms)
      retire(region)
    } else {
      try writeManifest(of: region, "forget")
    }
  }

  /// A shim has said hello, on the listener's thread. Nil: it is not one of ours.
  func admit(_ hello: ShimProtocol.Hello, _ channel: ShimChannel) -> Region? {
    guard let region = directory.withLock({ $0.byToken[hello.token] }) else {
      tell("a shim without a valid token was turned away")
      return nil
    }
    do {
      try attach(region, hello, channel)
    } catch {
      tell("the shim of \(region.name) was turned away: \(error)")
      return nil
    }
    arrivals.announce()
    return region
  }

  /// What QEMU says of itself is checked before it is used.
  private func attach(_ region: Region, _ hello: ShimProtocol.Hello, _ channel: ShimChannel) throws {
    func refuse(_ cause: String) -> MemtapError {
      MemtapError(.state, operation: "hello", subject: region.name, cause: cause)
    }
    // A token is good for one process: not for a second one, nor again after its end.
    guard region.attachment == nil else { throw refuse("its token was used before") }
    guard hello.ramBytes == region.byteCount else {
      throw refuse("its RAM has \(hello.ramBytes) bytes, \(region.byteCount) were announced")
    }
    guard try UnixSocket.peer(channel.socket).pid == hello.pid, let startTime = processStartTime(hello.pid)
    else {
      throw refuse("it speaks for another process")
    }
    let ramFile = try MemoryFile(hello.ram).reopened(O_RDONLY)
    guard ramFile.isOnTmpfs else { throw refuse("its RAM is no file on tmpfs") }
    region.attachment = Region.Attachment(
      pid: hello.pid, startTime: startTime, address: hello.ramAddress, ramFile: ramFile,
      memory: try ProcessMemory(pid: hello.pid))
    guard readmit(region, hello) else {
      region.attachment = nil
      throw refuse("it does not have what it had before")
    }
    region.shared.withLock { $0.shim = channel }
    do { try writeManifest(of: region, "hello") } catch {
      region.shared.withLock { $0.shim = nil }
      region.attachment = nil
      throw error
    }
  }

  /// A shim's socket has closed, on the listener's thread: its QEMU has ended.
  func ended(_ region: Region) {
    let (name, isForgotten) = region.shared.withLock {
      $0.shim = nil
      return ($0.name, $0.isForgotten)
    }
    retire(region)
    if isForgotten {
      directory.withLock { _ = $0.byToken.removeValue(forKey: region.token) }
      VMManifest.remove(token: region.token, in: paths.vms)
    } else {
      events.post(.vmGone(vm: name))
    }
  }

  /// Takes a VM that has ended out of its family.
  func retire(_ region: Region) {
    let thread = region.thread
    thread.post { [self] in
      thread.end(region)
      tidy(thread)
    }
  }

  func writeManifest(of region: Region, _ operation: String) throws(MemtapError) {
    let (name, isForgotten) = region.shared.withLock { ($0.name, $0.isForgotten) }
    let manifest = VMManifest(
      name: name, token: region.token, ramBytes: region.byteCount, base: region.base?.id,
      pid: region.attachment?.pid, startTime: region.attachment?.startTime, isForgotten: isForgotten)
    do { try manifest.write(in: paths.vms) } catch { throw MemtapError(operation, name, error) }
  }
}

/// Counts the VMs that have connected; others wait for the next one.
final class Arrivals: @unchecked Sendable {
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let changed = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
  private var number: UInt64 = 0

  init() {
    pthread_mutex_init(mutex, nil)
    var attributes = pthread_condattr_t()
    pthread_condattr_init(&attributes)
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    pthread_cond_init(changed, &attributes)
  }

  var count: UInt64 {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    return number
  }

  func announce() {
    pthread_mutex_lock(mutex)
    number += 1
    pthread_cond_broadcast(changed)
    pthread_mutex_unlock(mutex)
  }

  /// False: none came before `deadline` (monotonic nanoseconds).
  func wait(after seen: UInt64, until deadline: UInt64) -> Bool {
    var time = timespec(tv_sec: Int(deadline / 1_000_000_000), tv_nsec: Int(deadline % 1_000_000_000))
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    while number == seen {
      if pthread_cond_timedwait(changed, mutex, &time) == ETIMEDOUT { return false }
    }
    return true
  }
}

/// Whether a name can be a file's: letters, digits, `.`, `_`, `-`; not hidden; short.
func isFileName(_ name: String) -> Bool {
  (1...63).contains(name.utf8.count) && !name.hasPrefix(".")
    && name.utf8.allSatisfy {
      switch $0 {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"):
        true
      default: false
      }
    }
}

private func isHexadecimal(_ byte: UInt8) -> Bool {
  (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
    || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains(byte)
}
