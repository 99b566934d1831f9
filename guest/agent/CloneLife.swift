import CGuest
import Glibc
import GuestWire

/// The vmids of this VM, once it is a clone: which process is whose, and that the end of each is told once.
final class CloneLife {
  private enum Life {
    /// To be claimed by a process that sf_clone is about to fork.
    case unclaimed
    case running(pid: Int32, pidfd: Int32, watch: EventLoop.Token)
    case ended
  }

  private let loop: EventLoop
  /// Tells the host that a vmid ended without sf_exit.
  private let report: (_ vmid: UInt32, _ status: Int32) -> Void
  private var lives: [UInt32: Life] = [:]
  private var reaped: [Int32: Int32] = [:]

  /// For an end whose status is not to be had any more.
  private static let unknownStatus: Int32 = 255

  init(loop: EventLoop, report: @escaping (_ vmid: UInt32, _ status: Int32) -> Void) {
    self.loop = loop
    self.report = report
  }

  /// The VM has become a clone with these vmids; what it was before is no longer its business.
  func begin(first: UInt32, count: UInt32) {
    for life in lives.values { drop(life) }
    lives = [:]
    reaped = [:]
    for vmid in first..<first + count { lives[vmid] = .unclaimed }
  }

  /// Whether `vmid` is one of this VM's and has not ended.
  func isAlive(_ vmid: UInt32) -> Bool {
    switch lives[vmid] {
    case .unclaimed, .running: true
    case .ended, nil: false
    }
  }

  /// The process is `vmid` from now on. Its end, at once if it has ended by now, is the vmid's.
  func claim(_ vmid: UInt32, pid: Int32) -> Bool {
    guard case .unclaimed = lives[vmid] else { return false }
    let pidfd = cguest_pidfd_open(pid)
    guard pidfd >= 0,
      let watch = try? loop.add(pidfd, EventLoop.readable, { [unowned self] _ in processEnded(vmid) })
    else {
      if pidfd >= 0 { close(pidfd) }
      end(vmid, status: Self.unknownStatus)
      return true
    }
    lives[vmid] = .running(pid: pid, pidfd: pidfd, watch: watch)
    return true
  }

  /// The vmid ends by sf_exit, which the caller tells the host.
  func exits(_ vmid: UInt32) {
    if let life = lives[vmid] { drop(life) }
    lives[vmid] = .ended
  }

  /// A child of the agent was reaped: its status is not to be read from /proc any more.
  func noteReaped(pid: Int32, status: Int32) {
    for case .running(pid, _, _) in lives.values { reaped[pid] = status }
  }

  private func processEnded(_ vmid: UInt32) {
    guard case .running(let pid, _, _) = lives[vmid] else { return }
    end(vmid, status: reaped[pid] ?? Process.zombieStatus(pid) ?? Self.unknownStatus)
  }

  private func end(_ vmid: UInt32, status: Int32) {
    exits(vmid)
    report(vmid, status)
    // Whoever was to fork the processes for these has just ended, if it was not one of them.
    guard vmid == lives.keys.min() else { return }
    for (other, life) in lives.sorted(by: { $0.key < $1.key }) {
      if case .unclaimed = life {
        exits(other)
        report(other, status)
      }
    }
  }

  private func drop(_ life: Life) {
    guard case .running(_, let pidfd, let watch) = life else { return }
    loop.remove(watch)
    close(pidfd)
  }
}
