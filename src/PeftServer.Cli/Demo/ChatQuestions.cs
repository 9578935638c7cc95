using System.Text.Json.Nodes;
using PeftServer.Cli.Client;

namespace PeftServer.Cli.Demo;

/// <summary>A validation row: the messages up to the answer, and the answer that is right.</summary>
internal sealed record ChatQuestion(JsonArray Messages, string Label)
{
    /// <summary>Reads rows of chat whose last message is the answer.</summary>
    /// <exception cref="CommandException">A row is none.</exception>
    public static IReadOnlyList<ChatQuestion> Read(string path, int? count = null) =>
        [.. File.ReadLines(path).Select((line, i) => (Line: line, Number: i + 1)).Where(row => !string.IsNullOrWhiteSpace(row.Line))
            .Take(count ?? int.MaxValue).Select(row => Parse(row.Line, $"{path}, line {row.Number}"))];

    private static ChatQuestion Parse(string line, string place)
    {
        JsonArray messages;
        string label;
        try
        {
            messages = JsonNode.Parse(line)!["messages"]!.AsArray();
            label = messages[^1]!["content"]!.GetValue<string>();
        }
        catch (Exception e) when (e is System.Text.Json.JsonException or NullReferenceException or InvalidOperationException or ArgumentOutOfRangeException)
        {
            throw new CommandException($"{place}: a row of the demo is {{\"messages\": […]}} whose last message is the right answer, a text.", ExitCode.Usage, e);
        }

        return new ChatQuestion([.. messages.Take(messages.Count - 1).Select(message => message!.DeepClone())], label);
    }
}

/// <summary>A model's answers to all questions.</summary>
internal sealed record ChatAnswers(IReadOnlyList<string> Answers, double ExactMatch)
{
    /// <summary>Enough for the engine to batch, few enough to show that it queues.</summary>
    private const int InFlight = 16;

    /// <summary>Asks all <paramref name="questions"/>. An answer is right when its trimmed text is the label.</summary>
    public static async Task<ChatAnswers> AskAsync(
        ApiClient api,
        string model,
        IReadOnlyList<ChatQuestion> questions,
        int maxTokens,
        CancellationToken cancellationToken)
    {
        var answers = new string[questions.Count];
        await Parallel.ForAsync(
            0,
            questions.Count,
            new ParallelOptions { MaxDegreeOfParallelism = InFlight, CancellationToken = cancellationToken },
            async (i, token) => answers[i] = await api.ChatAsync(model, questions[i].Messages, maxTokens, token));
        var right = questions.Zip(answers).Count(pair => pair.Second.Trim() == pair.First.Label.Trim());
        return new ChatAnswers(answers, (double)right / questions.Count);
    }
}
