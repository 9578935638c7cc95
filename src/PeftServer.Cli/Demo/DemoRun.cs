using System.Diagnostics;
using System.Globalization;
using System.Text.Json.Nodes;
using PeftServer.Cli.Client;
using Spectre.Console;

namespace PeftServer.Cli.Demo;

/// <summary>
/// What a newcomer does first, over the public API alone: upload two data sets, fine-tune, compare the base model with
/// the adapter.
/// </summary>
/// <param name="api">The server.</param>
/// <param name="console">Where to tell.</param>
/// <param name="subject">What is taught.</param>
/// <param name="baseModel">Name of the model on the server.</param>
internal sealed class DemoRun(ApiClient api, IAnsiConsole console, DemoSubject subject, string baseModel)
{
    private readonly List<(string Name, TimeSpan Time)> _times = [];

    /// <summary>The id of the model that came out.</summary>
    public string FineTunedModel { get; private set; } = "";

    /// <summary>The question that was shown in full.</summary>
    public ChatQuestion? Example { get; private set; }

    /// <summary>The one line that says how it went.</summary>
    public string Result { get; private set; } = "";

    public async Task RunAsync(TimeSpan serverStart, int seed, CancellationToken cancellationToken)
    {
        _times.Add(("server start", serverStart));
        var questions = ChatQuestion.Read(subject.ValidationFile, subject.Questions);

        Heading("Fine-tune");
        var (training, validation) = await TimedAsync("upload", async () => (
            await api.UploadAsync(subject.TrainingFile, cancellationToken),
            await api.UploadAsync(subject.ValidationFile, subject.Questions, cancellationToken)));
        var progress = new TrainingProgress(console);
        FineTunedModel = await TimedAsync("job", () => FineTuneAsync(training, validation, seed, progress, cancellationToken));

        Heading($"Ask {questions.Count} validation {subject.Rows}");
        var baseline = await TimedAsync("base answers", () => AskAsync(baseModel, questions, cancellationToken));
        var adapter = await TimedAsync("adapter answers", () => AskAsync(FineTunedModel, questions, cancellationToken));
        ShowOne(questions, baseline, adapter);

        Result = string.Create(
            CultureInfo.InvariantCulture,
            $"exact match on {questions.Count} validation {subject.Rows}: base {baseline.ExactMatch:0.000}, adapter {adapter.ExactMatch:0.000}");
        ShowSummary();
    }

    private async Task<string> FineTuneAsync(
        string trainingFile,
        string validationFile,
        int seed,
        TrainingProgress progress,
        CancellationToken cancellationToken)
    {
        var job = await api.CreateJobAsync(Job(trainingFile, validationFile, seed), cancellationToken);
        console.WriteLine($"job {job}: LoRA on every linear layer of {baseModel}");
        await progress.ShowAsync(api.FollowAsync(job, cancellationToken));

        var ended = await api.GetJobAsync(job, cancellationToken);
        return ended.GetProperty("status").GetString() == "succeeded"
            ? ended.GetProperty("fine_tuned_model").GetString()!
            : throw new CommandException($"The job {job} {ended.GetProperty("status")}: {ended.GetProperty("error")}", ExitCode.Failed);
    }

    private JsonObject Job(string trainingFile, string validationFile, int seed) => new()
    {
        ["model"] = baseModel,
        ["training_file"] = trainingFile,
        ["validation_file"] = validationFile,
        ["suffix"] = subject.Suffix,
        ["seed"] = seed,
        ["peft"] = new JsonObject { ["peft_type"] = "LORA", ["r"] = 8, ["lora_alpha"] = 16, ["target_modules"] = "all-linear" },
        ["training"] = subject.Training.DeepClone(),
    };

    private async Task<ChatAnswers> AskAsync(string model, IReadOnlyList<ChatQuestion> questions, CancellationToken cancellationToken)
    {
        var answers = await ChatAnswers.AskAsync(api, model, questions, subject.MaxTokens, cancellationToken);
        console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{model}: {answers.ExactMatch:0.000}"));
        return answers;
    }

    private void ShowOne(IReadOnlyList<ChatQuestion> questions, ChatAnswers baseline, ChatAnswers adapter)
    {
        Heading("One of them in full");
        Example = questions[0];
        foreach (var message in questions[0].Messages)
        {
            console.WriteLine($"{message!["role"]}: {message["content"]}");
        }
        console.WriteLine();
        console.WriteLine($"right answer:    {questions[0].Label}");
        console.WriteLine($"base answers:    {baseline.Answers[0]}");
        console.WriteLine($"adapter answers: {adapter.Answers[0]}");
    }

    private void ShowSummary()
    {
        Heading("Summary");
        foreach (var (name, time) in _times)
        {
            console.WriteLine(Row(name, time));
        }
        console.WriteLine(Row("all", _times.Aggregate(TimeSpan.Zero, (sum, part) => sum + part.Time)));
    }

    private static string Row(string name, TimeSpan time) =>
        string.Create(CultureInfo.InvariantCulture, $"{name,-16} {time.TotalSeconds,7:0.0} s");

    private void Heading(string text)
    {
        console.WriteLine();
        console.WriteLine(text, new Style(decoration: Decoration.Bold));
    }

    private async Task<T> TimedAsync<T>(string name, Func<Task<T>> step)
    {
        var started = Stopwatch.GetTimestamp();
        var result = await step();
        _times.Add((name, Stopwatch.GetElapsedTime(started)));
        return result;
    }
}
