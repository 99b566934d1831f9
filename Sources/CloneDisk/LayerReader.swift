import Foundation
import Glibc
import LinuxSystem

/// What layers hold, one over the other: for a host that wants a copy, and that no export of the storage daemon is for.
///
/// The layers may not change meanwhile. Of those that are read where they lie, `qemu-img map` says which parts are where.
public final class LayerReader {
  /// A part of the disk that the layers say something of.
  struct Extent {
    var range: Range<UInt64>
    /// Index of the layer's file and the offset in it; nil: it is zeros.
    var place: (file: Int, offset: UInt64)?
  }

  public let virtualBytes: UInt64
  private let extents: [Extent]
  private let files: [OwnedDescriptor]

  /// `layers`: from the uppermost down, on this host. `scratch`: they are all of the disk's, and may be a user's or an
  /// image's; what can not be read where it lies, such as compressed ones, is expanded into this file, which does not exist
  /// before or afterwards. Nil: they are what a VM wrote in its last forks, and what is below them is left out.
  public init(
    _ layers: [DiskLayer], of virtualBytes: UInt64, in store: LayerStore, scratch: String?
  ) throws {
    self.virtualBytes = virtualBytes
    guard !layers.isEmpty else {
      (extents, files) = ([], [])
      return
    }
    let chain = Self.chain(layers, store)
    var entries = try ImageTool.map(chain)
    var paths = layers.map { store.layerPath($0.id) }
    defer { if let scratch { unlink(scratch) } }
    if let scratch, try !Self.isDirect(entries, layers, store) {
      do { try ImageTool.convert(chain, toRaw: scratch) } catch {
        throw DiskError.making(in: (scratch as NSString).deletingLastPathComponent, error)
      }
      paths = [scratch]
      entries = try ImageTool.map(scratch, format: "raw")
    }
    files = try paths.map { try OwnedDescriptor.open($0, O_RDONLY) }
    extents = try entries.compactMap { entry in
      guard entry.present else { return nil }
      guard entry.depth < paths.count, entry.start + entry.length <= (virtualBytes + 511) / 512 * 512 else {
        throw DiskError("a layer of the disk is larger than the disk")
      }
      let range = entry.start..<entry.start + entry.length
      if entry.zero || !entry.data { return Extent(range: range, place: nil) }
      guard let offset = entry.offset else { throw DiskError("a layer of the disk is not as a VM wrote it") }
      return Extent(range: range, place: (entry.depth, offset))
    }
  }

  private static func isDirect(
    _ entries: [ImageTool.MapEntry], _ layers: [DiskLayer], _ store: LayerStore
  ) throws -> Bool {
    try entries.allSatisfy { !$0.data || $0.offset != nil }
      && layers.allSatisfy { try $0.format == .raw || ImageTool.holdsItsData(store.layerPath($0.id)) }
  }

  private static func chain(_ layers: [DiskLayer], _ store: LayerStore) -> JSONValue {
    var below: JSONValue?
    for layer in layers.reversed() {
      var options: [String: JSONValue] = [
        "driver": .string(layer.format.rawValue),
        "file": ["driver": "file", "filename": .string(store.layerPath(layer.id))],
      ]
      if layer.format == .qcow2 { options["backing"] = below ?? .null }
      below = .object(options)
    }
    return below ?? .null
  }

  /// Calls `data` with parts of the disk that may be other than zeros, in ascending order and in pieces of whole blocks of
  /// `blockBytes`, up to 64 of them; what a block has behind the disk's end is zeros. `zeros` is called with the ranges of
  /// blocks that are zeros, among them in the same order.
  public func read(
    blockBytes: Int, data: (_ first: Int, _ bytes: UnsafeRawBufferPointer) throws -> Void,
    zeros: (Range<Int>) throws -> Void
  ) throws {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 * blockBytes, alignment: 4096)
    defer { buffer.deallocate() }
    let block = UInt64(blockBytes)
    /// The first block that nothing was said of yet.
    var next = 0
    for (index, extent) in extents.enumerated() {
      // Extents meet in the middle of a block only in files of the user's: then the first of them is asked for all of it.
      let end = Int((extent.range.upperBound + block - 1) / block)
      guard extent.place != nil else {
        let whole = max(next, Int((extent.range.lowerBound + block - 1) / block))
        let isLast = extent.range.upperBound >= virtualBytes
        let wholeEnd = isLast ? end : Int(extent.range.upperBound / block)
        if whole < wholeEnd {
          try zeros(whole..<wholeEnd)
          next = wholeEnd
        }
        continue
      }
      var first = max(next, Int(extent.range.lowerBound / block))
      while first < end {
        let count = min(64, end - first)
        let piece = UnsafeMutableRawBufferPointer(rebasing: buffer[..<(count * blockBytes)])
        try fill(piece, at: UInt64(first) * block, from: index)
        try data(first, UnsafeRawBufferPointer(piece))
        first += count
      }
      next = max(next, end)
    }
  }

  /// From the extents around `index`.
  private func fill(_ buffer: UnsafeMutableRawBufferPointer, at offset: UInt64, from index: Int) throws {
    memset(buffer.baseAddress!, 0, buffer.count)
    let wanted = offset..<offset + UInt64(buffer.count)
    var first = index
    while first > 0, extents[first - 1].range.upperBound > wanted.lowerBound { first -= 1 }
    for extent in extents[first...] {
      if extent.range.lowerBound >= wanted.upperBound { break }
      guard let place = extent.place, extent.range.overlaps(wanted) else { continue }
      let part = extent.range.clamped(to: wanted)
      var done: UInt64 = 0
      while done < UInt64(part.count) {
        let count = try systemCall("pread", subject: "a layer") {
          pread(
            files[place.file].raw, buffer.baseAddress! + Int(part.lowerBound + done - offset),
            part.count - Int(done), off_t(place.offset + part.lowerBound + done - extent.range.lowerBound))
        }
        // A raw file that is no multiple of 512 bytes ends within its last sector.
        if count == 0 { break }
        done += UInt64(count)
      }
    }
  }
}
