using System.Text;
using PeftServer.Engine.Data;

namespace PeftServer.Engine.Tests.Data;

public sealed class DatasetFileTests
{
    private const string Good = """{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}""";

    [Theory]
    [InlineData("train.jsonl", 1500)]
    [InlineData("validation.jsonl", 300)]
    public void Check_SampleFile_IsValid(string file, int rows)
    {
        var check = DatasetFile.Check(Path.Combine(Samples.Spam, file), TestContext.Current.CancellationToken);

        check.Faults.ShouldBeEmpty();
        check.Rows.ShouldBe(rows);
        check.Format.ShouldBe(DatasetFormat.Messages);
    }

    [Theory]
    [InlineData("")]
    [InlineData("\uFEFF")]
    public void Check_MarkCarriageReturnsBlankLines_AreFine(string mark)
    {
        var check = Check($"{mark}{Good}\r\n\r\n  \n{Good}\r\n");

        check.Faults.ShouldBeEmpty();
        check.Rows.ShouldBe(2);
    }

    [Theory]
    [InlineData("", "empty_file", "")]
    [InlineData("[{\"messages\": []}]", "no_messages", "messages")]
    [InlineData("{\n  \"messages\": []\n}", "no_messages", "messages")]
    [InlineData("{\"instruction\": \"a\"}", "missing_field", "output")]
    [InlineData("{\"conversations\": [{\"from\":\"alien\",\"value\":\"a\"}]}", "unknown_role", "conversations[0].from")]
    [InlineData("{\"conversations\": [{\"from\":\"human\",\"value\":\"a\"}]}", "nothing_to_learn", "conversations")]
    [InlineData("{\"preferred_output\": [], \"non_preferred_output\": []}", "missing_field", "input.messages")]
    [InlineData("{\"text\": \"a\", \"label\": [1]}", "wrong_type", "label")]
    [InlineData("{\"tokens\": [\"a\", \"b\"], \"ner_tags\": [\"O\"]}", "wrong_length", "ner_tags")]
    [InlineData("{\"question\": \"a\", \"context\": \"b c\", \"answers\": {\"text\": [\"c\"], \"answer_start\": [1]}}", "answer_not_there", "answers.answer_start[0]")]
    [InlineData("{\"source\": \"a\", \"target\": \"\"}", "nothing_to_learn", "target")]
    [InlineData("{\"anchor\": \"a\", \"positive\": 1}", "wrong_type", "positive")]
    [InlineData("{\"messages\": [{\"role\":\"alien\",\"content\":\"a\"}], \"answer\": \"b\"}", "unknown_role", "messages[0].role")]
    [InlineData("{\"messages\": [}", "invalid_json", "")]
    [InlineData("42", "not_an_object", "")]
    [InlineData("{\"mesages\": []}", "unknown_format", "mesages")]
    [InlineData("{\"messages\": []}", "no_messages", "messages")]
    [InlineData("{\"messages\": [{\"role\":\"user\",\"content\":\"a\"}]}", "nothing_to_learn", "messages")]
    [InlineData("{\"messages\": [{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\",\"weight\":0}]}", "nothing_to_learn", "messages")]
    [InlineData("{\"messages\": [{\"role\":\"asistant\",\"content\":\"a\"}]}", "unknown_role", "messages[0].role")]
    [InlineData("{\"messages\": [{\"role\":\"user\",\"contents\":\"a\",\"content\":\"a\"}]}", "unknown_field", "messages[0].contents")]
    [InlineData("{\"messages\": [{\"role\":\"user\"}]}", "missing_field", "messages[0].content")]
    [InlineData("{\"messages\": [{\"role\":\"user\",\"content\":7}]}", "wrong_type", "messages[0].content")]
    [InlineData("{\"messages\": [{\"role\":\"user\",\"content\":\"a\",\"weight\":1}]}", "weight_not_allowed", "messages[0].weight")]
    [InlineData("{\"messages\": [{\"role\":\"assistant\",\"content\":\"a\",\"weight\":0.5}]}", "wrong_weight", "messages[0].weight")]
    [InlineData("{\"messages\": [{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}", "unsupported_content", "messages[0].content[0].type")]
    [InlineData("{\"messages\": [{\"role\":\"assistant\",\"content\":\"\\ud83d\"}]}", "lone_surrogate", "messages[0].content")]
    [InlineData("{\"prompt\": \"a\"}", "missing_field", "completion")]
    [InlineData("{\"prompt\": \"a\", \"completion\": \"\"}", "nothing_to_learn", "completion")]
    [InlineData("{\"prompt\": \"a\", \"completion\": [1]}", "wrong_type", "prompt")]
    [InlineData("{\"prompt\": \"a\", \"completion\": \"b\", \"label\": \"good\"}", "wrong_type", "label")]
    [InlineData("{\"prompt\": \"a\", \"chosen\": \"b\"}", "missing_field", "chosen")]
    [InlineData("{\"chosen\": [{\"role\":\"user\",\"content\":\"a\"}], \"rejected\": [{\"role\":\"user\",\"content\":\"b\"}]}", "no_prompt", "chosen")]
    [InlineData("{\"text\": 1}", "wrong_type", "text")]
    public void Check_Fault_IsNamedByLinePathAndRule(string text, string rule, string path)
    {
        var fault = Check(text).Faults[0];

        fault.Rule.ShouldBe(rule);
        fault.Path.ShouldBe(path);
        fault.Line.ShouldBe(1);
        fault.Fix.ShouldNotBeEmpty();
    }

    [Theory]
    [InlineData("{\"text\": \"a\"}", DatasetFormat.Text)]
    [InlineData("{\"prompt\": \"a\", \"completion\": \"b\", \"source\": \"mine\"}", DatasetFormat.PromptCompletion)]
    [InlineData("{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}", DatasetFormat.Preference)]
    [InlineData("{\"chosen\": \"a b\", \"rejected\": \"a c\"}", DatasetFormat.Preference)]
    [InlineData("{\"prompt\": \"a\", \"completion\": \"b\", \"label\": true}", DatasetFormat.Judged)]
    [InlineData("{\"prompt\": \"a\", \"answer\": \"b\"}", DatasetFormat.Prompts)]
    [InlineData("{\"messages\": [{\"role\":\"user\",\"content\":\"a\"}], \"reference_answer\": 4}", DatasetFormat.Prompts)]
    [InlineData("{\"input\": {\"messages\": [{\"role\":\"user\",\"content\":\"a\"}]}, \"preferred_output\": [{\"role\":\"assistant\",\"content\":\"b\"}], \"non_preferred_output\": [{\"role\":\"assistant\",\"content\":\"c\"}]}", DatasetFormat.OpenAIPreference)]
    [InlineData("{\"instruction\": \"a\", \"input\": \"\", \"output\": \"b\"}", DatasetFormat.Alpaca)]
    [InlineData("{\"conversations\": [{\"from\":\"human\",\"value\":\"a\"},{\"from\":\"gpt\",\"value\":\"b\"}]}", DatasetFormat.ShareGpt)]
    [InlineData("{\"text\": \"a\", \"label\": 0}", DatasetFormat.Classification)]
    [InlineData("{\"premise\": \"a\", \"hypothesis\": \"b\", \"label\": \"yes\"}", DatasetFormat.Classification)]
    [InlineData("{\"tokens\": [\"a\"], \"ner_tags\": [0]}", DatasetFormat.TokenClassification)]
    [InlineData("{\"question\": \"a\", \"context\": \"🚀 c\", \"answers\": {\"text\": [\"c\"], \"answer_start\": [2]}}", DatasetFormat.Squad)]
    [InlineData("{\"source\": \"a\", \"target\": \"b\"}", DatasetFormat.Seq2Seq)]
    [InlineData("{\"anchor\": \"a\", \"positive\": \"b\", \"negative\": [\"c\"]}", DatasetFormat.Embedding)]
    [InlineData("{\"sentence1\": \"a\", \"sentence2\": \"b\", \"score\": 0.5}", DatasetFormat.Embedding)]
    [InlineData("{\"messages\": [{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}]},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"1\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]}]}", DatasetFormat.Messages)]
    public void Check_GoodRow_IsOfItsFormat(string text, DatasetFormat format)
    {
        var check = Check(text);

        check.Faults.ShouldBeEmpty();
        check.Format.ShouldBe(format);
    }

    [Fact]
    public void Check_Latin1_NamesTheLine()
    {
        var fault = DatasetFile.Check(new MemoryStream([.. Encoding.UTF8.GetBytes(Good + "\n"), .. Encoding.Latin1.GetBytes(Good.Replace('a', 'é'))]), TestContext.Current.CancellationToken)
            .Faults.ShouldHaveSingleItem();

        fault.Rule.ShouldBe("not_utf8");
        fault.Line.ShouldBe(2);
    }

    [Fact]
    public void Check_ManyFaults_KeepsTheFirstHundredAndCountsAll()
    {
        var check = Check(string.Concat(Enumerable.Repeat("{}\n", 250)));

        check.Faults.Count.ShouldBe(100);
        check.FaultCount.ShouldBe(250);
        check.Faults[99].Line.ShouldBe(100);
    }

    [Fact]
    public void Check_MixedFormats_NamesTheFirstRowThatDiffers() =>
        Check($$"""
            {{Good}}
            {"prompt": "a", "completion": "b"}
            """).Faults.ShouldHaveSingleItem().ShouldSatisfyAllConditions(f => f.Rule.ShouldBe("mixed_formats"), f => f.Line.ShouldBe(2));

    [Fact]
    public void Check_LineWithoutEnd_IsNotKeptInMemory()
    {
        var check = DatasetFile.Check(new EndlessLine(DatasetFile.MaxLineBytes * 4L), TestContext.Current.CancellationToken);

        check.Faults.ShouldHaveSingleItem().Rule.ShouldBe("line_too_long");
    }

    private static DatasetCheck Check(string text) =>
        DatasetFile.Check(new MemoryStream(Encoding.UTF8.GetBytes(text)), TestContext.Current.CancellationToken);

    /// <summary>So many letters without a newline.</summary>
    private sealed class EndlessLine(long length) : Stream
    {
        private long _left = length;

        public override bool CanRead => true;

        public override bool CanSeek => false;

        public override bool CanWrite => false;

        public override long Length => throw new NotSupportedException();

        public override long Position { get => throw new NotSupportedException(); set => throw new NotSupportedException(); }

        public override int Read(byte[] buffer, int offset, int count) => Read(buffer.AsSpan(offset, count));

        public override int Read(Span<byte> buffer)
        {
            var count = (int)Math.Min(buffer.Length, _left);
            buffer[..count].Fill((byte)'a');
            _left -= count;
            return count;
        }

        public override void Flush()
        {
        }

        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

        public override void SetLength(long value) => throw new NotSupportedException();

        public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();
    }
}
