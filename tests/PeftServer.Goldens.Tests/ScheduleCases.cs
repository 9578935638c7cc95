using System.Text.Json;
using PeftServer.Engine;
using PeftServer.Engine.Training;

namespace PeftServer.Goldens.Tests;

/// <summary>Learning rates against transformers, every step of every schedule and three past its end.</summary>
public sealed class ScheduleCases
{
    public static TheoryData<string> Cases
    {
        get
        {
            var path = GoldenFolder.PathOf("objectives", "schedules.json");
            return File.Exists(path) && GoldenFolder.Takes("objectives", "schedules")
                ? [.. JsonDocument.Parse(File.ReadAllBytes(path)).RootElement.GetProperty("schedules").EnumerateArray().Select(each => each.GetRawText())]
                : [];
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void Schedule_EveryStep_GivesTransformersMultiplier(string text)
    {
        var schedule = JsonDocument.Parse(text).RootElement;
        var expected = schedule.GetProperty("multipliers").Deserialize<double[]>()!;

        var actual = Enumerable.Range(0, expected.Length).Select(step => LearningRate.Factor(
            schedule.GetProperty("name").Deserialize<LearningRateSchedule>(PeftJson.Options), step, schedule.GetProperty("num_warmup_steps").GetInt32(),
            schedule.GetProperty("num_training_steps").GetInt32(), schedule.GetProperty("lr").GetDouble(), schedule.GetProperty("kwargs").Deserialize<ScheduleArguments>(PeftJson.Options)));

        actual.ShouldBe(expected, 1e-9);
    }
}
