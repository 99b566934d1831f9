extension VMDescriptor {
  private typealias Format = DescriptorFormat
  private typealias Section = (type: Format.SectionType, required: Bool, body: [UInt8])

  /// The descriptor's bytes, at most 0.5 MB for each GiB of RAM with QEMU's usual device state: the layout takes
  /// a bit a page at most (32 KiB a GiB).
  ///
  /// Throws `.sizes` or `.malformed` where a value could not be read back, e.g. runs that overlap.
  public func encode() throws(DescriptorError) -> [UInt8] {
    var sections: [Section] = [
      (.metadata, true, try encodeMetadata()),
      (.disks, true, try encodeDisks()),
      try encodeLayout(),
      (.deviceState, true, deviceState),
    ]
    if let network { sections.append((.network, true, try encode(network))) }
    return assemble(sections)
  }

  private func encodeMetadata() throws(DescriptorError) -> [UInt8] {
    guard ramBytes > 0, ramBytes.isMultiple(of: Self.pageBytes) else {
      throw .sizes("RAM of \(ramBytes) bytes is not a number of pages")
    }
    var writer = ByteWriter()
    writer.append(createdMicroseconds)
    writer.append(ramBytes)
    writer.append(vcpus)
    try writer.append(snapshot, field: "the snapshot's name")
    try writer.append(parent, field: "the parent's name")
    try writer.append(image, field: "the image's name")
    try writer.append(compatibility, field: "the compatibility")
    try writer.append(kernelCommandLine, field: "the kernel's command line")
    return writer.bytes
  }

  private func encodeDisks() throws(DescriptorError) -> [UInt8] {
    var writer = ByteWriter()
    writer.append(UInt32(disks.count))
    for disk in disks {
      writer.append(disk.virtualBytes)
      writer.append(UInt32(disk.layers.count))
      for layer in disk.layers {
        try writer.append(layer.id, field: "a layer's id")
        try writer.append(layer.format, field: "a layer's format")
        try writer.append(layer.host, field: "a layer's host")
      }
    }
    return writer.bytes
  }

  private func encodeLayout() throws(DescriptorError) -> Section {
    let pages = ramBytes / Self.pageBytes
    let runs = try PageRunCoding.encodeRuns(existingPages, pages: pages)
    guard UInt64(runs.count) > PageRunCoding.bitmapBytes(pages: pages) else { return (.pageRuns, true, runs) }
    return (.pageBitmap, true, PageRunCoding.encodeBitmap(existingPages, pages: pages))
  }

  private func encode(_ network: NetworkIdentity) throws(DescriptorError) -> [UInt8] {
    var writer = ByteWriter()
    try writer.append(network.mac, field: "the MAC address")
    try writer.append(network.ip, field: "the IP address")
    return writer.bytes
  }

  private func assemble(_ sections: [Section]) -> [UInt8] {
    let bodiesBegin = Format.headerBytes + sections.count * Format.tableEntryBytes
    let totalBytes = sections.reduce(bodiesBegin) { $0 + $1.body.count }

    var writer = ByteWriter()
    writer.append(bytes: Format.magic)
    writer.append(Format.version)
    writer.append(UInt16(Format.headerBytes))
    writer.append(UInt32(sections.count))
    writer.append(UInt64(totalBytes))
    writer.append(UInt64(0))
    writer.append(bytes: [UInt8](repeating: 0, count: Format.digestBytes))

    var offset = bodiesBegin
    for section in sections {
      writer.append(section.type.rawValue)
      writer.append(section.required ? Format.required : 0)
      writer.append(UInt64(offset))
      writer.append(UInt64(section.body.count))
      writer.append(bytes: section.body.withUnsafeBytes(Format.digest))
      writer.append(UInt64(0))
      offset += section.body.count
    }
    for section in sections { writer.append(bytes: section.body) }

    var bytes = writer.bytes
    let checksum = bytes.withUnsafeBytes(Format.checksum)
    bytes.replaceSubrange(Format.checksumOffset..<Format.headerBytes, with: checksum)
    return bytes
  }
}
