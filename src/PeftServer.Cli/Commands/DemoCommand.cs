using System.CommandLine;
using PeftServer.Cli.Client;
using PeftServer.Cli.Demo;
using PeftServer.Cli.Up;
using PeftServer.Core.Hosting;
using Spectre.Console;

namespace PeftServer.Cli.Commands;

/// <summary><c>peftserver demo</c></summary>
internal static class DemoCommand
{
    private const string Lesson = """
        Examples:
          peftserver demo
          peftserver demo --once --data /tmp/peft --port 0

        Starts what `peftserver up` starts, teaches a model of 3.9 million parameters to tell spam from ham, and asks it
        300 mails that it has not seen, before and after. About two minutes on two cores. Then it goes on as
        `peftserver up` does until Ctrl-C; with --once it stops, and its last line is the result.
        """;

    public static Command Create()
    {
        var data = HostOptions.Data();
        var port = HostOptions.Port();
        var once = new Option<bool>("--once") { Description = "Stop everything at the end instead of serving until Ctrl-C." };
        var seed = new Option<int>("--seed")
        {
            Description = "Seed of the job: initial weights and order of rows. Default: 42.",
            HelpName = "N",
            DefaultValueFactory = _ => 42,
        };
        var set = HostOptions.Set();
        var command = new DescribedCommand("demo", "Fine-tune the sample model on this machine and chat with it.", Lesson)
        {
            data,
            port,
            once,
            seed,
            set,
        };
        command.SetAction((result, stopping) => RunAsync(
            new UpOptions(DataFolder.Of(result.GetValue(data)), result.GetValue(port), AdminPort: null, Settings.Parse(result.GetValue(set)!)),
            result.GetValue(seed),
            result.GetValue(once),
            stopping));
        return command;
    }

    private static async Task<int> RunAsync(UpOptions options, int seed, bool once, CancellationToken stopping)
    {
        var status = new StatusLines(Console.Out, Console.Error);
        string result;
        try
        {
            await using var server = await LocalServer.StartAsync(options, status, stopping);
            using var api = new ApiClient(server.Api, Settings.Read(options.Set)["Auth:ApiKey"]);
            var demo = new DemoRun(api, AnsiConsole.Console);
            await demo.RunAsync(server.StartTime, seed, stopping);
            result = demo.Result;
            if (!once)
            {
                Console.WriteLine(result);
                ShowAddresses(server, demo, options.Data);
                await Task.Delay(Timeout.InfiniteTimeSpan, stopping);
            }
        }
        catch (OperationCanceledException) when (stopping.IsCancellationRequested)
        {
            status.Line("stopped", "");
            return once ? ExitCode.Failed : ExitCode.Done;
        }
        Console.WriteLine(result);
        return ExitCode.Done;
    }

    private static void ShowAddresses(LocalServer server, DemoRun demo, string data)
    {
        var api = server.Api.GetLeftPart(UriPartial.Authority);
        Console.WriteLine($$"""

            API         {{api}}/v1
            Swagger UI  {{api}}/swagger
            Dashboard   {{server.Admin.GetLeftPart(UriPartial.Authority)}}/hangfire
            Data        {{data}}

            Try it:
              curl {{api}}/v1/chat/completions -H 'Content-Type: application/json' -d '{
                "model": "{{demo.FineTunedModel}}", "max_tokens": 4, "temperature": 0,
                "messages": [{"role": "system", "content": "Classify the e-mail as spam or ham."},
                             {"role": "user", "content": "You have won! Claim your free prize today."}]}'

            Ctrl-C stops everything.
            """);
    }
}
