using System.Buffers.Binary;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Weights;

/// <summary>
/// Writes safetensors files byte for byte as Hugging Face's library does: metadata <c>{"format":"pt"}</c>, wide types first,
/// names in byte order, the header padded with spaces to a multiple of 8.
/// </summary>
public static class SafetensorsWriter
{
    private static readonly Dictionary<string, string> Usual = new() { ["format"] = "pt" };
    private static readonly JsonWriterOptions Compact = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>
    /// Writes <paramref name="tensors"/> (on any device) to <paramref name="path"/>: to a temporary file beside it, flushed to
    /// the disk, then renamed, so that a crash leaves the old file or the new one. Empty metadata is left out.
    /// </summary>
    public static void Write(string path, IReadOnlyDictionary<string, Tensor> tensors, IReadOnlyDictionary<string, string>? metadata = null)
    {
        var order = tensors
            .Select(entry => (entry.Key, entry.Value, Dtype: SafetensorsFile.NameOf(entry.Value.dtype)))
            .OrderByDescending(entry => Rank(entry.Dtype))
            .ThenBy(entry => entry.Key, Utf8Order.Instance)
            .ToList();
        var header = Header(order.Select(entry => (entry.Key, (IReadOnlyList<long>)entry.Value.shape, entry.Dtype, (long)entry.Value.ElementSize)), metadata ?? Usual);

        var temporary = $"{path}.{Environment.ProcessId}.tmp";
        try
        {
            using (var file = new FileStream(temporary, FileMode.Create, FileAccess.Write, FileShare.None))
            {
                Span<byte> prefix = stackalloc byte[8];
                BinaryPrimitives.WriteUInt64LittleEndian(prefix, (ulong)header.Length);
                file.Write(prefix);
                file.Write(header);
                foreach (var (_, tensor, _) in order)
                {
                    WriteData(file, tensor);
                }

                file.Flush(flushToDisk: true);
            }

            File.Move(temporary, path, overwrite: true);
        }
        finally
        {
            File.Delete(temporary);
        }
    }

    /// <summary>Bytes of the file that tensors of these shapes and bytes an element make, which need not be there.</summary>
    public static long SizeOf(IEnumerable<(string Name, IReadOnlyList<long> Shape, int ElementSize)> tensors)
    {
        var order = tensors.OrderBy(entry => entry.Name, Utf8Order.Instance).ToList();
        var data = order.Sum(entry => entry.ElementSize * entry.Shape.Aggregate(1L, (product, size) => product * size));
        return sizeof(ulong) + Header(order.Select(entry => (entry.Name, entry.Shape, "F32", (long)entry.ElementSize)), Usual).Length + data;
    }

    private static int Rank(string dtype) =>
        SafetensorsHeader.Dtypes.Select((known, index) => (known.Name, index)).First(known => known.Name == dtype).index;

    private static byte[] Header(
        IEnumerable<(string Name, IReadOnlyList<long> Shape, string Dtype, long ElementSize)> order, IReadOnlyDictionary<string, string> metadata)
    {
        using var buffer = new MemoryStream();
        using (var json = new Utf8JsonWriter(buffer, Compact))
        {
            json.WriteStartObject();
            if (metadata.Count > 0)
            {
                json.WriteStartObject("__metadata__");
                foreach (var (key, value) in metadata)
                {
                    json.WriteString(key, value);
                }

                json.WriteEndObject();
            }

            var at = 0L;
            foreach (var (name, shape, dtype, elementSize) in order)
            {
                var end = at + (elementSize * shape.Aggregate(1L, (product, size) => product * size));
                json.WriteStartObject(name);
                json.WriteString("dtype", dtype);
                json.WriteStartArray("shape");
                foreach (var size in shape)
                {
                    json.WriteNumberValue(size);
                }

                json.WriteEndArray();
                json.WriteStartArray("data_offsets");
                json.WriteNumberValue(at);
                json.WriteNumberValue(end);
                json.WriteEndArray();
                json.WriteEndObject();
                at = end;
            }

            json.WriteEndObject();
        }

        while (buffer.Length % 8 != 0)
        {
            buffer.WriteByte((byte)' ');
        }

        return buffer.ToArray();
    }

    private static unsafe void WriteData(FileStream file, Tensor tensor)
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        var local = tensor.cpu().contiguous();
        var data = (byte*)Aten.DataPointer(local);
        var left = local.numel() * local.ElementSize;
        while (left > 0)
        {
            var count = (int)Math.Min(left, 1 << 26);
            file.Write(new ReadOnlySpan<byte>(data, count));
            data += count;
            left -= count;
        }
    }

    /// <summary>Rust compares strings by their UTF-8 bytes; .NET's ordinal order differs beyond the basic plane.</summary>
    private sealed class Utf8Order : IComparer<string>
    {
        public static readonly Utf8Order Instance = new();

        public int Compare(string? x, string? y) => Encoding.UTF8.GetBytes(x!).AsSpan().SequenceCompareTo(Encoding.UTF8.GetBytes(y!));
    }
}
