using System.Diagnostics;
using System.Text.Json;

namespace PeftServer.EndToEnd.Tests;

public sealed class OpenAIClientTests : IDisposable
{
    private readonly Sandbox _sandbox = new();

    public void Dispose() => _sandbox.Dispose();

    /// <summary>OpenAI's own client, unmodified, on one base URL: upload, job, events, chat, streamed chat.</summary>
    [Fact]
    public async Task NodeClient_WholeWay_Works()
    {
        await using var up = await PeftServerProgram.UpAsync(_sandbox, "--set", "Worker:Devices=cpu", "--set", "Inference:Device=cpu");
        var rows = File.ReadLines(Path.Combine(AppContext.BaseDirectory, "samples", "datasets", "spam", "train.jsonl")).Take(32);
        var data = _sandbox.Write("spam.jsonl", string.Join('\n', rows) + "\n");

        var said = await RunNodeAsync("first-job.mjs", up.Address("api").GetLeftPart(UriPartial.Authority) + "/v1", data);

        said.GetProperty("file").GetProperty("purpose").GetString().ShouldBe("fine-tune");
        said.GetProperty("job").GetProperty("status").GetString().ShouldBe("succeeded");
        said.GetProperty("job").GetProperty("model").GetString().ShouldBe("tiny-llama");
        said.GetProperty("job").GetProperty("trained_tokens").GetInt32().ShouldBeGreaterThan(0);
        said.GetProperty("metricSteps").EnumerateArray().Select(step => step.GetInt32()).ShouldBe([1, 2, 3, 4]);
        var model = said.GetProperty("job").GetProperty("fine_tuned_model").GetString()!;
        model.ShouldStartWith("ft:tiny-llama:");
        said.GetProperty("models").EnumerateArray().Select(id => id.GetString()).ShouldBe(["tiny-llama", model], ignoreOrder: true);
        said.GetProperty("chat").GetProperty("model").GetString().ShouldBe(model);
        said.GetProperty("chat").GetProperty("usage").GetProperty("completion_tokens").GetInt32().ShouldBeInRange(1, 8);
        said.GetProperty("streamed").GetString().ShouldBe(said.GetProperty("chat").GetProperty("choices")[0].GetProperty("message").GetProperty("content").GetString());
        var (completion, echoed) = (said.GetProperty("completion").GetProperty("choices")[0], said.GetProperty("echoed").GetProperty("choices")[0]);
        echoed.GetProperty("text").GetString().ShouldBe("Call me" + completion.GetProperty("text").GetString());
        echoed.GetProperty("logprobs").GetProperty("token_logprobs")[0].ValueKind.ShouldBe(JsonValueKind.Null);
        said.GetProperty("read").GetProperty("choices").EnumerateArray().Select(choice => choice.GetProperty("logprobs").GetProperty("token_logprobs").GetArrayLength()).ShouldBe([3, 2]);
        said.GetProperty("beams").GetProperty("choices").GetArrayLength().ShouldBe(2);
        said.GetProperty("unknownModel").GetProperty("status").GetInt32().ShouldBe(404);
    }

    private static async Task<JsonElement> RunNodeAsync(string script, params string[] arguments)
    {
        var folder = PeftServerProgram.Metadata("NodeFolder");
        var info = new ProcessStartInfo("node", [script, .. arguments])
        {
            WorkingDirectory = folder,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using var node = Process.Start(info)!;
        var output = node.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        var error = node.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
        await node.WaitForExitAsync(TestContext.Current.CancellationToken).WaitAsync(TimeSpan.FromMinutes(5));
        node.ExitCode.ShouldBe(0, await error);
        return JsonDocument.Parse(await output).RootElement;
    }
}
