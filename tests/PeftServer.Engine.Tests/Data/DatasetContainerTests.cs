using System.IO.Compression;
using System.Text;
using Parquet.Schema;
using Parquet.Serialization;
using PeftServer.Engine.Data;

namespace PeftServer.Engine.Tests.Data;

/// <summary>The same rows, written down in every way that they come.</summary>
public sealed class DatasetContainerTests
{
    private const string Rows = """
        {"prompt": "Is \"this\", spam?", "completion": "ham, and\nnothing else"}
        {"prompt": "[b] is what?", "completion": "naïve 🚀"}
        """;

    private const string Array = """
        [
          {
            "prompt": "Is \"this\", spam?",
            "completion": "ham, and\nnothing else"
          }, {"prompt": "[b] is what?",
            "completion": "naïve 🚀"}
        ]
        """;

    private const string Csv = "prompt,completion\r\n\"Is \"\"this\"\", spam?\",\"ham, and\nnothing else\"\r\n[b] is what?,naïve 🚀\r\n";

    public static TheoryData<string, byte[]> Files => new()
    {
        { "lines", Encoding.UTF8.GetBytes(Rows) },
        { "a mark, carriage returns, blank lines", Encoding.UTF8.GetBytes("\uFEFF\r\n" + Rows.ReplaceLineEndings("\r\n\r\n")) },
        { "a pretty-printed array", Encoding.UTF8.GetBytes(Array) },
        { "an array with a mark", Encoding.UTF8.GetBytes("\uFEFF" + Array) },
        { "objects over several lines", Encoding.UTF8.GetBytes(Array.Trim().TrimStart('[').TrimEnd(']').Replace("}, {", "}\n{")) },
        { "UTF-16", [.. Encoding.Unicode.GetPreamble(), .. Encoding.Unicode.GetBytes(Rows)] },
        { "UTF-16, high byte first, no mark", Encoding.BigEndianUnicode.GetBytes(Rows) },
        { "gzip", Packed(Rows, stream => new GZipStream(stream, CompressionLevel.Fastest)) },
        { "gzip of an array", Packed(Array, stream => new GZipStream(stream, CompressionLevel.Fastest)) },
        { "zstd", Packed(Rows, stream => new ZstdSharp.CompressionStream(stream)) },
        { "csv", Encoding.UTF8.GetBytes(Csv) },
        { "csv with a mark", Encoding.UTF8.GetBytes("\uFEFF" + Csv) },
        { "csv by tabs", Encoding.UTF8.GetBytes("prompt\tcompletion\n\"Is \"\"this\"\", spam?\"\t\"ham, and\nnothing else\"\n[b] is what?\tnaïve 🚀") },
        { "csv in zstd", Packed(Csv, stream => new ZstdSharp.CompressionStream(stream)) },
        { "parquet", Parquet() },
    };

    [Theory]
    [MemberData(nameof(Files))]
    public void ReadRows_HoweverWritten_GivesTheSameRows(string how, byte[] bytes)
    {
        var faults = new FaultList(10);

        var rows = DatasetFile.ReadRows(new MemoryStream(bytes), faults, cancellationToken: TestContext.Current.CancellationToken).Select(row => row.Row).ToList();

        faults.First.ShouldBeEmpty(how);
        rows.ShouldBe([new TextRow("Is \"this\", spam?", "ham, and\nnothing else"), new TextRow("[b] is what?", "naïve 🚀")], how);
    }

    [Theory]
    [InlineData("[\n{\"text\": \"a\"},\n\n{\"text\": 1}]", 4)]
    [InlineData("text,label\na,b\n\"c\nd\",e\nf\n", 5)]
    [InlineData("{\n\"text\": \"a\"\n}\n{\n\"text\": {}\n}", 4)]
    public void Check_FaultInARow_NamesTheLineWhereItBegins(string text, long line) =>
        DatasetFile.Check(new MemoryStream(Encoding.UTF8.GetBytes(text)), TestContext.Current.CancellationToken).Faults.ShouldHaveSingleItem().Line.ShouldBe(line);

    [Fact]
    public void Check_FileThatEndsEarly_SaysSo()
    {
        var whole = Packed(string.Concat(Enumerable.Range(0, 5000).Select(i => $"{{\"text\": \"{i * 7919}\"}}\n")), stream => new GZipStream(stream, CompressionLevel.Fastest));

        var check = DatasetFile.Check(new MemoryStream(whole[..(whole.Length / 2)]), TestContext.Current.CancellationToken);

        check.IsValid.ShouldBeFalse();
    }

    [Fact]
    public void ReadRows_CsvOfChats_ReadsTheirLists()
    {
        const string text = "messages;label\n\"[{\"\"role\"\": \"\"user\"\", \"\"content\"\": \"\"a\"\"}, {\"\"role\"\": \"\"assistant\"\", \"\"content\"\": \"\"b\"\"}]\";x";

        DatasetFile.Check(new MemoryStream(Encoding.UTF8.GetBytes(text)), TestContext.Current.CancellationToken).Format.ShouldBe(DatasetFormat.Messages);
    }

    [Fact]
    public void ReadRows_ManyFaults_GoesOn()
    {
        var data = TrainingData.Read(
            new MemoryStream(Encoding.UTF8.GetBytes("{\"text\": 1}\n{\"text\": 2}\n{\"text\": \"a b c\"}\n")), Samples.Tokenizer, new TrainingDataOptions { MaxLength = 64 }, TestContext.Current.CancellationToken);

        (data.Summary.Used, data.Summary.Skipped).ShouldBe((1, 2));
        data.Summary.Notes[1].Reason.ShouldBe("text: text is a number. Make it a text. (wrong_type)");
    }

    private static byte[] Packed(string text, Func<Stream, Stream> packer)
    {
        var packed = new MemoryStream();
        using (var stream = packer(packed))
        {
            stream.Write(Encoding.UTF8.GetBytes(text));
        }

        return packed.ToArray();
    }

    private static byte[] Parquet()
    {
        var file = new MemoryStream();
        var schema = new ParquetSchema(new DataField<string>("prompt"), new DataField<string>("completion"));
        List<IDictionary<string, object?>> rows =
        [
            new Dictionary<string, object?> { ["prompt"] = "Is \"this\", spam?", ["completion"] = "ham, and\nnothing else" },
            new Dictionary<string, object?> { ["prompt"] = "[b] is what?", ["completion"] = "naïve 🚀" },
        ];
        ParquetSerializer.SerializeUntypedAsync(rows, schema, file, null, null, CancellationToken.None).GetAwaiter().GetResult();
        return file.ToArray();
    }
}
