using PeftServer.Cli.Demo;

namespace PeftServer.Cli.Tests.Demo;

public sealed class ChatQuestionTests
{
    [Fact]
    public void Read_SampleMails_AreQuestionsWithoutTheirAnswer()
    {
        var questions = ChatQuestion.Read(Path.Combine(AppContext.BaseDirectory, "samples", "datasets", "spam", "validation.jsonl"));

        questions.Count.ShouldBe(300);
        questions.ShouldAllBe(question => question.Label == "spam" || question.Label == "ham");
        questions.ShouldAllBe(question => question.Messages[question.Messages.Count - 1]!["role"]!.GetValue<string>() == "user");
    }
}
