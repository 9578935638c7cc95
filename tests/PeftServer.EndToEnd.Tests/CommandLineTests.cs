using PeftServer.Cli;

namespace PeftServer.EndToEnd.Tests;

public sealed class CommandLineTests
{
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(30);

    [Theory]
    [InlineData("up --prot 80", "--port")]
    [InlineData("upp", "up")]
    [InlineData("up --port 70000", "from 0 (any free one) to 65535")]
    [InlineData("up --set Wrker:Devices=cpu", "Worker:Devices")]
    [InlineData("up --set Worker:Devices", "--set Section:Key=value")]
    [InlineData("up --set Api:Url=http://127.0.0.1:1", "--port")]
    [InlineData("data check --format alpacca rows.jsonl", "alpaca")]
    [InlineData("data check nothing.jsonl", "nothing.jsonl")]
    [InlineData("", "--help")]
    public async Task Run_WhatItDoesNotKnow_IsAnErrorWithARemedy(string arguments, string remedy)
    {
        await using var program = PeftServerProgram.Start(arguments.Split(' ', StringSplitOptions.RemoveEmptyEntries));

        (await program.ExitedAsync(Limit)).ShouldBe(ExitCode.Usage);
        program.Output.ShouldContain(remedy);
    }

    [Fact]
    public async Task Help_Root_ListsEveryCommandAndTeaches()
    {
        await using var program = PeftServerProgram.Start("--help");

        (await program.ExitedAsync(Limit)).ShouldBe(ExitCode.Done);
        foreach (var command in new[] { "demo", "up", "migrate", "api", "worker", "inference", "export" })
        {
            program.Output.ShouldContain($"  {command} ");
        }
        program.Output.ShouldContain("Exit codes:");
        program.Output.ShouldNotContain("postgres-watcher");
    }

    [Theory]
    [InlineData("demo")]
    [InlineData("up")]
    [InlineData("migrate")]
    [InlineData("api")]
    [InlineData("worker")]
    [InlineData("inference")]
    [InlineData("export")]
    [InlineData("estimate")]
    [InlineData("data check")]
    [InlineData("data preview")]
    public async Task Help_Command_ShowsExamples(string command)
    {
        await using var program = PeftServerProgram.Start([.. command.Split(' '), "--help"]);

        (await program.ExitedAsync(Limit)).ShouldBe(ExitCode.Done);
        program.Output.ShouldContain($"Examples:\n  peftserver {command}");
    }
}
