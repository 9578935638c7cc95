using System.Text.Json.Nodes;
using PeftServer.Cli.Client;

namespace PeftServer.Cli.Demo;

/// <summary>One validation mail: the messages up to the answer, and the answer that is right.</summary>
internal sealed record MailQuestion(JsonArray Messages, string Label)
{
    /// <summary>Reads rows of chat whose last message is the answer.</summary>
    public static IReadOnlyList<MailQuestion> Read(string path) =>
        [.. File.ReadLines(path).Where(line => line.Length > 0).Select(line => Parse(JsonNode.Parse(line)!))];

    private static MailQuestion Parse(JsonNode row)
    {
        var messages = row["messages"]!.AsArray();
        var label = messages[^1]!["content"]!.GetValue<string>();
        return new MailQuestion([.. messages.Take(messages.Count - 1).Select(message => message!.DeepClone())], label);
    }
}

/// <summary>A model's answers to all mails.</summary>
internal sealed record MailAnswers(IReadOnlyList<string> Answers, double ExactMatch)
{
    /// <summary>Enough for the engine to batch, few enough to show that it queues.</summary>
    private const int InFlight = 16;

    /// <summary>Asks all <paramref name="questions"/>. An answer is right when its trimmed text is the label.</summary>
    public static async Task<MailAnswers> AskAsync(
        ApiClient api,
        string model,
        IReadOnlyList<MailQuestion> questions,
        CancellationToken cancellationToken)
    {
        var answers = new string[questions.Count];
        await Parallel.ForAsync(
            0,
            questions.Count,
            new ParallelOptions { MaxDegreeOfParallelism = InFlight, CancellationToken = cancellationToken },
            async (i, token) => answers[i] = await api.ChatAsync(model, questions[i].Messages, maxTokens: 4, token));
        var right = questions.Zip(answers).Count(pair => pair.Second.Trim() == pair.First.Label);
        return new MailAnswers(answers, (double)right / questions.Count);
    }
}
