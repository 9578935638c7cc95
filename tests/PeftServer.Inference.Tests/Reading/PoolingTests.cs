using System.Runtime.InteropServices;
using System.Text.Json;

namespace PeftServer.Inference.Tests.Reading;

/// <summary><c>POST /v1/pooling</c> on the real host, held to what the paths of each task say.</summary>
public sealed class PoolingTests(RunningHost host) : IClassFixture<RunningHost>
{
    private const string Path = "/v1/pooling";

    [Fact]
    public async Task Pool_Vectors_AreTheEmbeddings()
    {
        const string Input = """["where is it", "in rome today"]""";
        var embedded = await host.AskAsync("/v1/embeddings", $$"""{"model": "bert", "input": {{Input}}}""");

        var body = await host.AskAsync(Path, $$"""{"model": "bert", "input": {{Input}}, "task": "embed"}""");
        var packed = await host.AskAsync(Path, $$"""{"model": "bert", "input": {{Input}}, "encoding_format": "base64"}""");

        body.GetProperty("object").GetString().ShouldBe("list");
        body.GetProperty("id").GetString().ShouldStartWith("pool-");
        body.GetProperty("usage").GetProperty("total_tokens").GetInt32().ShouldBe(10);
        for (var i = 0; i < 2; i++)
        {
            var data = body.GetProperty("data")[i];
            data.GetProperty("object").GetString().ShouldBe("pooling");
            data.GetProperty("index").GetInt32().ShouldBe(i);
            var vector = Floats(data.GetProperty("data"));
            vector.ShouldBe(Floats(embedded.GetProperty("data")[i].GetProperty("embedding")));
            MemoryMarshal.Cast<byte, float>(packed.GetProperty("data")[i].GetProperty("data").GetBytesFromBase64()).ToArray().ShouldBe(vector);
        }
    }

    [Fact]
    public async Task Pool_Classes_AreTheProbabilitiesAndRawTheScores()
    {
        var classified = await host.AskAsync("/v1/classify", """{"model": "bert_cls", "input": "where is it"}""");

        var data = Floats((await host.AskAsync(Path, """{"model": "bert_cls", "input": "where is it"}""")).GetProperty("data")[0].GetProperty("data"));
        var raw = Floats((await host.AskAsync(Path, """{"model": "bert_cls", "input": "where is it", "use_activation": false}""")).GetProperty("data")[0].GetProperty("data"));

        data.ShouldBe(Floats(classified.GetProperty("data")[0].GetProperty("probs")));
        var total = raw.Sum(score => Math.Exp(score));
        for (var i = 0; i < raw.Count; i++)
        {
            ((double)data[i]).ShouldBe(Math.Exp(raw[i]) / total, 1e-6);
        }
    }

    [Fact]
    public async Task Pool_ModelThatTags_GivesARowForEachToken()
    {
        var rows = (await host.AskAsync(Path, """{"model": "bert_tok", "input": "where is it"}""")).GetProperty("data")[0].GetProperty("data");

        rows.GetArrayLength().ShouldBe(5);
        rows.EnumerateArray().ShouldAllBe(row => Math.Abs(Floats(row).Sum() - 1) < 1e-5);
    }

    [Theory]
    [InlineData("""{"model": "bert", "input": "it", "task": "classify"}""", "task")]
    [InlineData("""{"model": "bert", "input": "it", "encoding_format": "bytes"}""", "encoding_format")]
    [InlineData("""{"model": "bert_qa", "input": "it"}""", "model")]
    [InlineData("""{"model": "tiny-llama", "input": "it"}""", "model")]
    public async Task Pool_BadRequest_NamesTheField(string request, string field) => (await host.RefusedAsync(Path, request)).GetProperty("param").GetString().ShouldBe(field);

    private static List<float> Floats(JsonElement list) => [.. list.EnumerateArray().Select(value => value.GetSingle())];
}
