using PeftServer.Cli;

namespace PeftServer.EndToEnd.Tests;

public sealed class DataCommandTests : IDisposable
{
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(30);
    private readonly Sandbox _sandbox = new();

    private static string Model => Path.Combine(AppContext.BaseDirectory, "samples", "models", "tiny-llama");

    public void Dispose() => _sandbox.Dispose();

    [Fact]
    public async Task Check_FaultyRows_NamesLinePathAndRemedy()
    {
        var rows = _sandbox.Write("rows.jsonl", """
            {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}
            {"messages": [{"role": "user", "content": "Hi"}, {"role": "asistant", "content": "Hello."}]}
            """);
        await using var program = PeftServerProgram.Start("data", "check", rows);

        (await program.ExitedAsync(Limit)).ShouldBe(ExitCode.Failed);
        program.Output.ShouldContain("rows.jsonl:2: messages[1].role: There is no role \"asistant\". Did you mean assistant? (unknown_role)");
        program.Output.ShouldContain("2 rows, 1 faults");
    }

    [Fact]
    public async Task Check_WithModel_AccountsForEveryRow()
    {
        var rows = _sandbox.Write("pairs.csv", "prompt,chosen,rejected\na,b,c\nd,e,\n");
        await using var program = PeftServerProgram.Start("data", "check", rows, "--method", "dpo", "--model", Model);

        (await program.ExitedAsync(Limit)).ShouldBe(ExitCode.Done);
        program.Output.ShouldContain("pairs.csv:3: skipped: chosen: A row of preferences needs both");
        program.Output.ShouldContain("2 rows: 1 used, 0 cut, 0 split, 1 skipped");
    }

    [Fact]
    public async Task Preview_Chat_MarksWhatTrains()
    {
        var rows = _sandbox.Write("rows.jsonl", """{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}""");
        await using var program = PeftServerProgram.Start("data", "preview", rows, "--model", Model);

        (await program.ExitedAsync(Limit)).ShouldBe(ExitCode.Done);
        program.Output.ShouldContain("<|im_start|>assistant\n«Hello.<|im_end|>»");
    }
}
