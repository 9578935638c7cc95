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
          peftserver demo --model HuggingFaceTB/SmolLM2-135M-Instruct --dataset ./banking77 \
            --training max_steps=200 --training learning_rate=1e-3

        Starts what `peftserver up` starts, teaches a model of 3.9 million parameters to tell spam from ham, and asks it
        300 mails that it has not seen, before and after. About two minutes on two cores. Then it goes on as
        `peftserver up` does until Ctrl-C; with --once it stops, and its last line is the result.

        Any other model and chat set will do: --model takes a folder, a GGUF file or an id on the Hub, --dataset a folder
        with train.jsonl and validation.jsonl, whose rows end with the right answer. Then it trains one epoch in batches
        of 8 at a learning rate of 2e-4 unless --training says otherwise, and asks the first 100 validation rows.
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
        var model = new Option<string?>("--model") { Description = "Folder, GGUF file or id on the Hub. Default: the sample model.", HelpName = "MODEL" };
        var dataset = new Option<DirectoryInfo?>("--dataset") { Description = "Folder with train.jsonl and validation.jsonl. Default: the sample mails.", HelpName = "DIR" };
        var questions = new Option<int?>("--questions") { Description = "Validation rows to evaluate and ask, the first ones. Default: 100; all of the sample's.", HelpName = "N" };
        var training = new Option<string[]>("--training")
        {
            Description = "A setting of the job's training; may be given more than once.",
            HelpName = "name=value",
            DefaultValueFactory = _ => [],
        };
        var set = HostOptions.Set();
        var command = new DescribedCommand("demo", "Fine-tune the sample model on this machine and chat with it.", Lesson)
        {
            data,
            port,
            once,
            seed,
            model,
            dataset,
            questions,
            training,
            set,
        };
        command.SetAction((result, stopping) => RunAsync(
            new UpOptions(DataFolder.Of(result.GetValue(data)), result.GetValue(port), AdminPort: null, Settings.Parse(result.GetValue(set)!)),
            DemoSubject.Of(result.GetValue(model), result.GetValue(dataset)?.FullName, result.GetValue(questions), result.GetValue(training)!),
            result.GetValue(seed),
            result.GetValue(once),
            stopping));
        return command;
    }

    private static async Task<int> RunAsync(UpOptions options, DemoSubject subject, int seed, bool once, CancellationToken stopping)
    {
        var status = new StatusLines(Console.Out, Console.Error);
        string result;
        try
        {
            await using var server = await LocalServer.StartAsync(options, status, stopping);
            using var api = new ApiClient(server.Api, Settings.Read(options.Set)["Auth:ApiKey"]);
            var models = Settings.Read(options.Set)["Models:Root"] is { Length: > 0 } root ? root : Path.Combine(options.Data, "models");
            var demo = new DemoRun(api, AnsiConsole.Console, subject, await subject.BringModelAsync(new DirectoryInfo(models), status, stopping));
            await demo.RunAsync(server.StartTime, seed, stopping);
            result = demo.Result;
            if (!once)
            {
                Console.WriteLine(result);
                ShowAddresses(server, subject, demo, options.Data);
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

    private static void ShowAddresses(LocalServer server, DemoSubject subject, DemoRun demo, string data)
    {
        var api = server.Api.GetLeftPart(UriPartial.Authority);
        Console.WriteLine($$"""

            API         {{api}}/v1
            Swagger UI  {{api}}/swagger
            Dashboard   {{server.Admin.GetLeftPart(UriPartial.Authority)}}/hangfire
            Data        {{data}}

            Try it:
              curl {{api}}/v1/chat/completions -H 'Content-Type: application/json' -d '{
                "model": "{{demo.FineTunedModel}}", "max_tokens": {{subject.MaxTokens}}, "temperature": 0,
                "messages": {{Messages(subject, demo)}}}'

            Ctrl-C stops everything.
            """);
    }

    /// <summary>A chat to try: an invented mail, or the first validation row of another data set.</summary>
    private static string Messages(DemoSubject subject, DemoRun demo) => subject.Rows == "mails"
        ? """
          [{"role": "system", "content": "Classify the e-mail as spam or ham."},
                             {"role": "user", "content": "You have won! Claim your free prize today."}]
          """
        : demo.Example!.Messages.ToJsonString().Replace("'", "'\\''", StringComparison.Ordinal);
}
